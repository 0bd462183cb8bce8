//! Where each leader epoch starts in a log. It is found in the frames themselves and never stored apart from them, so
//! that it cannot disagree with what the log holds. Not here: what leaders and followers make of it (`core::replica`).

use crate::core::types::{LeaderEpoch, Position};

/// An epoch, and the position of its first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The position of its first frame.
    pub start: Position,
}

/// The epochs of a log, oldest first; epochs and starts both rise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    /// The epoch of the newest frame; -1 without frames.
    pub fn newest(&self) -> LeaderEpoch {
        self.starts.last().map_or(LeaderEpoch(-1), |known| known.epoch)
    }

    /// Notes that a frame of this epoch stands at this position; of an epoch that is known already, nothing changes.
    pub(crate) fn start(&mut self, epoch: LeaderEpoch, start: Position) {
        if epoch > self.newest() {
            self.starts.push(EpochStart { epoch, start });
        }
    }

    /// The greatest epoch at or below `epoch`, and where it ends in a log that ends at `end`; none where every epoch
    /// that is known is greater.
    pub fn end_of(&self, epoch: LeaderEpoch, end: Position) -> Option<(LeaderEpoch, Position)> {
        let behind = self.starts.partition_point(|known| known.epoch <= epoch);
        let found = self.starts[..behind].last()?;
        Some((found.epoch, self.starts.get(behind).map_or(end, |next| next.start)))
    }

    /// The epochs in force between two positions, and before them that of the frame that ends at the first.
    pub(crate) fn between(&self, base: Position, end: Position) -> Vec<EpochStart> {
        let begin = self.starts.partition_point(|known| known.start < base).saturating_sub(1);
        self.starts[begin..].iter().filter(|known| known.start < end || known.start <= base).copied().collect()
    }

    /// Puts other starts in the place of those within a range: frames in it were given other positions. An epoch that has
    /// no frame left there starts where the next one does, which says the same.
    pub(crate) fn replace(&mut self, from: Position, to: Position, starts: &[EpochStart]) {
        let begin = self.starts.partition_point(|known| known.start < from);
        let end = self.starts.partition_point(|known| known.start < to);
        let before = begin.checked_sub(1).map_or(LeaderEpoch(-1), |last| self.starts[last].epoch);
        let in_force = self.starts[..end].last().copied();
        let mut new: Vec<EpochStart> = starts.iter().filter(|known| known.epoch > before).copied().collect();
        let newest = new.last().map_or(before, |known| known.epoch);
        // The newest epoch stays known, also where none of its frames is left.
        new.extend(in_force.filter(|known| known.epoch > newest).map(|known| EpochStart { start: to, ..known }));
        self.starts.splice(begin..end, new);
        let mut newest = LeaderEpoch(-1);
        self.starts.retain(|known| {
            let rises = known.epoch > newest;
            newest = newest.max(known.epoch);
            rises
        });
    }

    /// Forgets epochs that ended before `position`. That of the frame that ends there stays: replicas that have nothing
    /// behind it in common part there.
    pub(crate) fn forget_before(&mut self, position: Position) {
        let begin = self.starts.partition_point(|known| known.start < position).saturating_sub(1);
        self.starts.drain(..begin);
    }

    /// Every epoch, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = EpochStart> + '_ {
        self.starts.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in [(1, 0), (1, 40), (4, 100), (6, 250)] {
            epochs.start(LeaderEpoch(epoch), Position(start));
        }
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = three();
        let end_of = |epoch| epochs.end_of(LeaderEpoch(epoch), Position(300)).map(|(e, p)| (e.0, p.0));
        assert_eq!(
            [0, 1, 3, 4, 5, 6, 9].map(end_of),
            [None, Some((1, 100)), Some((1, 100)), Some((4, 250)), Some((4, 250)), Some((6, 300)), Some((6, 300)),]
        );
        assert_eq!(epochs.newest(), LeaderEpoch(6));
    }

    #[test]
    fn what_is_freed_takes_its_epochs_along_but_the_one_in_force() {
        let mut epochs = three();
        let starts = |found: Vec<EpochStart>| found.iter().map(|known| known.epoch.0).collect::<Vec<_>>();
        assert_eq!(starts(epochs.between(Position(0), Position(100))), [1]);
        assert_eq!(starts(epochs.between(Position(120), Position(260))), [4, 6]);
        assert_eq!(starts(epochs.between(Position(100), Position(100))), [1, 4], "a carrier has what it parts with");
        epochs.forget_before(Position(100));
        assert_eq!(starts(epochs.iter().collect()), [1, 4, 6], "the last frame that was freed has epoch 1");
        assert_eq!(epochs.end_of(LeaderEpoch(3), Position(300)), Some((LeaderEpoch(1), Position(100))));
        epochs.forget_before(Position(120));
        assert_eq!(starts(epochs.iter().collect()), [4, 6]);
    }
}
