//! Sets of numbers as sorted, disjoint, half-open ranges: values or offsets of a queue, as many as a run has.
//! Pure; no per-record work.

use std::ops::Range;

/// A set of numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    sorted: Vec<Range<u64>>,
}

impl Ranges {
    /// The union of the given ranges, in any order, empty ones included.
    pub(super) fn of(mut ranges: Vec<Range<u64>>) -> Ranges {
        ranges.retain(|range| range.start < range.end);
        ranges.sort_unstable_by_key(|range| range.start);
        let mut sorted: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match sorted.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                Some(_) | None => sorted.push(range),
            }
        }
        Ranges { sorted }
    }

    /// Adds a range; cheap while the set has few parts.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let first = self.sorted.partition_point(|part| part.end < range.start);
        let last = self.sorted.partition_point(|part| part.start <= range.end);
        let joined = match self.sorted.get(first..last) {
            Some([only]) => only.start.min(range.start)..only.end.max(range.end),
            Some([head, .., tail]) => head.start.min(range.start)..tail.end.max(range.end),
            Some([]) | None => range,
        };
        self.sorted.splice(first..last.max(first), [joined]);
    }

    /// Whether the number is in the set.
    pub(super) fn contains(&self, number: u64) -> bool {
        let after = self.sorted.partition_point(|range| range.start <= number);
        after > 0 && number < self.sorted[after - 1].end
    }

    /// Whether the whole range is in the set.
    pub(super) fn covers(&self, range: Range<u64>) -> bool {
        let after = self.sorted.partition_point(|part| part.start <= range.start);
        range.is_empty() || (after > 0 && range.end <= self.sorted[after - 1].end)
    }

    /// The parts of the range that are in the set, in order.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let first = self.sorted.partition_point(|part| part.end <= range.start);
        self.sorted[first..]
            .iter()
            .take_while(|part| part.start < range.end)
            .map(|part| part.start.max(range.start)..part.end.min(range.end))
            .collect()
    }

    /// The parts of the range that are not in the set, in order.
    pub(super) fn missing_from(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        if self.covers(range.clone()) {
            return missing;
        }
        let mut next = range.start;
        for part in self.within(range.clone()) {
            if next < part.start {
                missing.push(next..part.start);
            }
            next = part.end;
        }
        if next < range.end {
            missing.push(next..range.end);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_agree_with_a_plain_set(
            parts in prop::collection::vec((0u64..60, 0u64..9), 0..12),
            from in 0u64..70,
            length in 0u64..30,
        ) {
            let ranges = Ranges::of(parts.iter().map(|(start, count)| *start..start + count).collect());
            let plain: BTreeSet<u64> = parts.iter().flat_map(|(start, count)| *start..start + count).collect();
            let asked = from..from + length;
            let within: Vec<u64> = ranges.within(asked.clone()).into_iter().flatten().collect();
            let missing: Vec<u64> = ranges.missing_from(asked.clone()).into_iter().flatten().collect();
            prop_assert_eq!(within, asked.clone().filter(|n| plain.contains(n)).collect::<Vec<_>>());
            prop_assert_eq!(ranges.covers(asked.clone()), missing.is_empty());
            prop_assert_eq!(missing, asked.clone().filter(|n| !plain.contains(n)).collect::<Vec<_>>());
            let mut inserted = Ranges::default();
            parts.iter().for_each(|(start, count)| inserted.insert(*start..start + count));
            prop_assert_eq!(&inserted, &ranges);
            for number in asked {
                prop_assert_eq!(ranges.contains(number), plain.contains(&number));
            }
        }
    }
}
