//! Arguments that several subcommands share, each parsed once into a validated value.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use mqassay_scenarios::campaign::Shard;

/// Seeds of one campaign at most.
const SEEDS_MAX: u64 = 10_000_000;

/// One of so many parts of a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardArgument(pub(crate) Shard);

/// Seeds `A..B`, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) RangeInclusive<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let wanted = || format!("seeds are A..B with A at most B, both included, as in 1..100; not {text:?}");
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let last = last.strip_prefix('=').unwrap_or(last);
        let first: u64 = first.trim().parse().map_err(|_| wanted())?;
        let last: u64 = last.trim().parse().map_err(|_| wanted())?;
        if first > last {
            return Err(wanted());
        }
        if last - first >= SEEDS_MAX {
            return Err(format!("at most {SEEDS_MAX} seeds at a time; split {text:?} into several campaigns"));
        }
        Ok(Seeds(first..=last))
    }
}

impl FromStr for ShardArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<ShardArgument, String> {
        let wanted = || format!("a shard is k/n with k from 1 to n, as in 2/4; not {text:?}");
        let (number, of) = text.split_once('/').ok_or_else(wanted)?;
        let number: u64 = number.trim().parse().map_err(|_| wanted())?;
        let of: u64 = of.trim().parse().map_err(|_| wanted())?;
        if (1..=of).contains(&number) { Ok(ShardArgument(Shard { number, of })) } else { Err(wanted()) }
    }
}

/// A share of all, above 0 and at most 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let wanted = || format!("a share above 0 and at most 1 is wanted, as in 0.1; not {text:?}");
    let share: f64 = text.parse().map_err(|_| wanted())?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err(wanted()) }
}

/// A positive number of seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = || format!("a number of seconds from 1 to 1000000 is wanted, not {text:?}");
    let seconds: f64 = text.parse().map_err(|_| wanted())?;
    if (1.0..=1_000_000.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(wanted()) }
}

/// A percentage, with or without its sign; the value is the fraction.
pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let wanted = || format!("a percentage from 0 to 1000 is wanted, as in 5%; not {text:?}");
    let percent: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| wanted())?;
    if (0.0..=1_000.0).contains(&percent) { Ok(percent / 100.0) } else { Err(wanted()) }
}

/// One `key=value`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err(format!("a setting is key=value, not {text:?}")),
    }
}

/// Settings by name; of two with one name the later wins.
pub(crate) fn settings(pairs: &[(String, String)]) -> BTreeMap<String, String> {
    pairs.iter().cloned().collect()
}

/// As many threads as were asked for, else as many as the machine has processors.
pub(crate) fn jobs(asked: Option<NonZeroUsize>) -> usize {
    let available = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    asked.map_or_else(available, NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_include_both_ends() {
        let cases = [
            ("1..3", Some(1..=3)),
            ("7", Some(7..=7)),
            ("2..=2", Some(2..=2)),
            ("9..1", None),
            ("one", None),
            ("0..18446744073709551615", None),
            ("1..", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Seeds>().ok().map(|seeds| seeds.0), expected, "{text}");
        }
        assert!("one".parse::<Seeds>().unwrap_err().contains("1..100"));
    }

    #[test]
    fn values_out_of_bounds_are_refused() {
        assert_eq!(seconds("80"), Ok(Duration::from_secs(80)));
        for text in ["0", "-1", "NaN", "soon", "1e9"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        assert_eq!(setting("a = b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for text in ["0", "-0.1", "1.1", "NaN", "all"] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!((share("1"), share("0.25")), (Ok(1.0), Ok(0.25)));
        assert_eq!("2/4".parse(), Ok(ShardArgument(Shard { number: 2, of: 4 })));
        for text in ["0/4", "5/4", "1", "1/0", "a/b"] {
            assert!(text.parse::<ShardArgument>().is_err(), "{text}");
        }
        assert_eq!((percent("5%"), percent("0.5")), (Ok(0.05), Ok(0.005)));
        assert!(percent("-1%").is_err() && percent("much").is_err());
        assert!(setting("a").is_err() && setting("=b").is_err());
    }
}
