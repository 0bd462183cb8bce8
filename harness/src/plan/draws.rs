//! Named draws: hash(salt, label, entity, how many draws that entity has made under the label).
//! No draw comes from a shared sequence, so removing one operation or fault leaves every other draw as it was.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A source of named draws. Clones share their counts.
#[derive(Debug, Clone)]
pub struct Draws {
    salt: u64,
    counts: Rc<RefCell<BTreeMap<(&'static str, u64), u64>>>,
}

impl Draws {
    /// A source with no draw made yet.
    pub fn new(salt: u64) -> Draws {
        Draws { salt, counts: Rc::default() }
    }

    /// The entity's next draw under the label, uniform over all 64-bit values.
    pub fn draw(&self, label: &'static str, entity: u64) -> u64 {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry((label, entity)).or_insert(0);
        let drawn = draw_at(self.salt, label, entity, *count);
        *count += 1;
        drawn
    }

    /// The entity's next draw in `low..=high`.
    pub fn range(&self, label: &'static str, entity: u64, low: u64, high: u64) -> u64 {
        assert!(low <= high, "empty range {low}..={high} for {label}");
        let span = u128::from(high - low) + 1;
        low + ((u128::from(self.draw(label, entity)) * span) >> 64) as u64
    }

    /// Whether the entity's next draw falls into the given share of all values.
    pub fn chance(&self, label: &'static str, entity: u64, probability: f64) -> bool {
        (self.draw(label, entity) as f64) < probability * (u64::MAX as f64)
    }

    /// One of the choices.
    pub fn pick<'a, T>(&self, label: &'static str, entity: u64, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "no choices for {label}");
        &choices[self.range(label, entity, 0, choices.len() as u64 - 1) as usize]
    }
}

/// The draw with the given count, from nothing but its name.
pub fn draw_at(salt: u64, label: &str, entity: u64, count: u64) -> u64 {
    let mut name = Vec::with_capacity(label.len() + 16);
    name.extend_from_slice(label.as_bytes());
    name.extend_from_slice(&entity.to_le_bytes());
    name.extend_from_slice(&count.to_le_bytes());
    xxh3_64_with_seed(&name, salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_own_name_and_count_alone() {
        let alone = Draws::new(7);
        let expected = [alone.draw("a", 1), alone.draw("a", 1)];
        let crowded = Draws::new(7);
        let first = crowded.draw("a", 1);
        crowded.draw("b", 1);
        crowded.draw("a", 2);
        assert_eq!(expected, [first, crowded.draw("a", 1)]);
        assert_ne!(expected[0], expected[1]);
        assert_ne!(expected[0], Draws::new(8).draw("a", 1));
    }

    #[test]
    fn ranges_reach_both_ends() {
        let draws = Draws::new(1);
        let seen: std::collections::BTreeSet<_> = (0..200).map(|_| draws.range("r", 0, 3, 6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), vec![3, 4, 5, 6]);
    }
}
