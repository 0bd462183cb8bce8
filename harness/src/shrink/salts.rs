//! What cannot be left out as things happen to fall, and can under other draws. A fault that only shifted the course of
//! a run seems needed: without it the race that shows the anomaly goes the other way. Under some other salt it goes the
//! right way again, so each piece is tried with a few. Before values are made simpler: they take away the jitter that the
//! draws decide. Start at `drop_under_other_salts`.

use super::pieces::drop_operations;
use super::search::Search;
use crate::plan::Plan;
use crate::plan::draws::draw_at;

/// Salts that each piece is tried with.
const SALTS: usize = 4;
/// Into how many parts the operations are cut, one of which is left out.
const PARTS: [usize; 3] = [2, 4, 8];

/// Leaves out faults and parts of the operations that only the draws made needful.
pub(super) fn drop_under_other_salts(search: &mut Search<'_>) {
    loop {
        let without_fault = |plan: &Plan, number: usize| {
            let mut smaller = salted(plan, number % SALTS);
            smaller.faults.remove(number / SALTS);
            smaller
        };
        if search.round("faults, other draws", search.plan().faults.len() * SALTS, &without_fault).is_none() {
            break;
        }
    }
    for parts in PARTS {
        loop {
            let operations = search.plan().operation_count();
            if operations < parts {
                break;
            }
            let size = operations.div_ceil(parts);
            let without_part = |plan: &Plan, number: usize| {
                let mut smaller = salted(plan, number % SALTS);
                let from = number / SALTS * size;
                drop_operations(&mut smaller, from..from + size);
                smaller
            };
            let count = operations.div_ceil(size) * SALTS;
            if search.round("operations, other draws", count, &without_part).is_none() {
                break;
            }
        }
    }
}

/// The plan with another salt, which follows from its own.
pub(super) fn salted(plan: &Plan, number: usize) -> Plan {
    Plan { salt: draw_at(plan.salt, "shrink", number as u64, 0) >> 1, ..plan.clone() }
}
