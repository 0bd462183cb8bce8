//! Strands: consecutive values at consecutive offsets, merged over all that saw them. Pure; no per-record work.

use std::ops::{Deref, Range};

/// Consecutive values at consecutive offsets, merged over all that saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strand {
    /// First offset.
    pub(super) first_offset: u64,
    /// First value.
    pub(super) first_value: u64,
    /// Records.
    pub(super) count: u64,
}

/// Strands sorted by first offset, then value; none overlaps or continues another.
#[derive(Debug, Default)]
pub(super) struct Strands {
    sorted: Vec<Strand>,
    /// Records of the longest.
    longest: u64,
}

impl Strand {
    /// First offset past it.
    pub(super) fn end(&self) -> u64 {
        self.first_offset + self.count
    }

    /// First value past it.
    pub(super) fn end_value(&self) -> u64 {
        self.first_value + self.count
    }

    /// The value at an offset within it.
    pub(super) fn value_at(&self, offset: u64) -> u64 {
        assert!(offset >= self.first_offset && offset < self.end(), "offset {offset} outside of {self:?}");
        self.first_value + (offset - self.first_offset)
    }

    /// Whether it has the value at the offset.
    pub(super) fn holds(&self, value: u64, offset: u64) -> bool {
        offset >= self.first_offset && offset < self.end() && self.value_at(offset) == value
    }

    /// Equal for strands that continue each other.
    fn diagonal(&self) -> u64 {
        self.first_value.wrapping_sub(self.first_offset)
    }
}

impl Strands {
    /// Joins strands that overlap or continue each other; quick where they come nearly in order of offset.
    pub(super) fn merged(mut strands: Vec<Strand>) -> Strands {
        strands.sort_by_key(|strand| (strand.first_offset, strand.first_value));
        join_neighbours(&mut strands);
        // Where no offset has two values, strands that continue each other are neighbours, and all is done.
        if strands.windows(2).any(|pair| pair[0].end() > pair[1].first_offset) {
            strands.sort_unstable_by_key(|strand| (strand.diagonal(), strand.first_offset));
            join_neighbours(&mut strands);
            strands.sort_unstable_by_key(|strand| (strand.first_offset, strand.first_value));
        }
        strands.shrink_to_fit();
        let longest = strands.iter().map(|strand| strand.count).max().unwrap_or(0);
        Strands { sorted: strands, longest }
    }

    /// Those that share an offset with the range, in order.
    pub(super) fn at(&self, offsets: Range<u64>) -> impl Iterator<Item = &Strand> {
        let reach = offsets.start.saturating_sub(self.longest);
        let first = self.sorted.partition_point(|strand| strand.first_offset < reach);
        let end = self.sorted.partition_point(|strand| strand.first_offset < offsets.end);
        self.sorted[first..end.max(first)].iter().filter(move |strand| strand.end() > offsets.start)
    }
}

impl Deref for Strands {
    type Target = [Strand];

    fn deref(&self) -> &[Strand] {
        &self.sorted
    }
}

/// Joins each strand with the one before it where it continues or overlaps it.
fn join_neighbours(strands: &mut Vec<Strand>) {
    strands.dedup_by(|strand, last| {
        let is_joined = last.diagonal() == strand.diagonal() && strand.first_offset <= last.end();
        if is_joined {
            last.count = last.end().max(strand.end()) - last.first_offset;
        }
        is_joined
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn strands_agree_with_a_plain_set_and_none_continues_another(
            parts in prop::collection::vec((0u64..40, 0u64..4, 1u64..9), 0..14),
            from in 0u64..50,
            length in 0u64..9,
        ) {
            let strand = |(first_offset, shift, count): &(u64, u64, u64)| {
                Strand { first_offset: *first_offset, first_value: 100 + first_offset + 20 * shift, count: *count }
            };
            let cells = |strands: &mut dyn Iterator<Item = Strand>| -> BTreeSet<(u64, u64)> {
                strands.flat_map(|strand| (0..strand.count).map(move |n| (strand.first_offset + n, strand.first_value + n))).collect()
            };
            let strands = Strands::merged(parts.iter().map(strand).collect());
            prop_assert_eq!(cells(&mut strands.iter().copied()), cells(&mut parts.iter().map(strand)));
            for (index, one) in strands.iter().enumerate() {
                for other in &strands[index + 1..] {
                    prop_assert!((one.first_offset, one.first_value) < (other.first_offset, other.first_value));
                    prop_assert!(one.diagonal() != other.diagonal() || one.end() < other.first_offset);
                }
            }
            let asked = from..from + length;
            let plain: Vec<&Strand> =
                strands.iter().filter(|strand| strand.first_offset < asked.end && strand.end() > asked.start).collect();
            prop_assert_eq!(strands.at(asked).collect::<Vec<_>>(), plain);
        }
    }
}
