//! When warm-up is over: a window's cost per message no longer moves. Pure; who measures the windows is not here.

/// The window (counted from 0) from which on a system is steady: the last two changes, each against the window before,
/// are at most `change_maximum` (a fraction). None where that is not reached yet.
pub fn steady_from(windows: &[f64], change_maximum: f64) -> Option<usize> {
    assert!(change_maximum > 0.0, "no two windows are ever equal");
    let change = |index: usize| (windows[index] - windows[index - 1]).abs() / windows[index - 1].max(f64::MIN_POSITIVE);
    (2..windows.len()).find(|&index| change(index) <= change_maximum && change(index - 1) <= change_maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_needs_two_small_changes_in_a_row() {
        assert_eq!(steady_from(&[], 0.05), None);
        assert_eq!(steady_from(&[100.0, 100.0], 0.05), None);
        assert_eq!(steady_from(&[100.0, 100.0, 100.0], 0.05), Some(2));
        // One small change by chance, in the middle of a fall, does not end warm-up.
        assert_eq!(steady_from(&[900.0, 500.0, 495.0, 300.0, 296.0, 294.0], 0.05), Some(5));
        assert_eq!(steady_from(&[900.0, 500.0, 300.0, 200.0], 0.05), None);
    }
}
