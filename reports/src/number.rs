//! Numbers as people read them: three significant digits, a unit that fits (held by a space that does not break),
//! thousands separated.
//! Not here: any rounding of what is stored; the data beside each chart keeps every digit.

/// A whole number with thousands separated by commas.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Three significant digits, never in exponent notation, without zeros that say nothing.
pub(crate) fn significant(value: f64) -> String {
    if !value.is_finite() {
        return "not a number".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor();
    let decimals = (2.0 - magnitude).clamp(0.0, 9.0) as usize;
    let written = format!("{value:.decimals$}");
    let trimmed = if written.contains('.') { written.trim_end_matches('0').trim_end_matches('.') } else { &written };
    if value.abs() >= 10_000.0 { grouped_signed(value) } else { trimmed.to_owned() }
}

fn grouped_signed(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", count(value.abs().round() as u64))
}

/// A value with an SI prefix: `1.84 M`, `920 k`, `12`.
pub(crate) fn si(value: f64) -> String {
    const STEPS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    for (step, prefix) in STEPS {
        // 999,500 rounds to 1,000 k, which reads better as 1 M.
        if value.abs() >= step * 0.9995 {
            return format!("{}\u{a0}{prefix}", significant(value / step));
        }
    }
    significant(value)
}

/// A duration given in nanoseconds.
pub(crate) fn duration(nanoseconds: f64) -> String {
    const STEPS: [(f64, &str); 3] = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    for (step, unit) in STEPS {
        if nanoseconds.abs() >= step * 0.9995 {
            return format!("{}\u{a0}{unit}", significant(nanoseconds / step));
        }
    }
    format!("{}\u{a0}ns", significant(nanoseconds))
}

/// A size given in bytes.
pub(crate) fn bytes(value: f64) -> String {
    const STEPS: [(f64, &str); 3] =
        [((1u64 << 30) as f64, "GiB"), ((1u64 << 20) as f64, "MiB"), ((1u64 << 10) as f64, "KiB")];
    for (step, unit) in STEPS {
        if value.abs() >= step {
            return format!("{}\u{a0}{unit}", significant(value / step));
        }
    }
    format!("{}\u{a0}B", significant(value))
}

/// A value in its unit, as a metric names it.
pub(crate) fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "ns" => duration(value),
        "bytes" => bytes(value),
        "ratio" => format!("{}\u{a0}×", significant(value)),
        "" => si(value),
        other => format!("{}\u{a0}{other}", si(value)),
    }
}

/// A percentile with as many nines as it has.
pub(crate) fn percentile(value: f64) -> String {
    let written = format!("{value:.6}");
    format!("{}\u{a0}%", written.trim_end_matches('0').trim_end_matches('.'))
}

/// A count with its noun: `1 run`, `12 runs`.
pub(crate) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(value), if value == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        let cases: &[(String, &str)] = &[
            (count(0), "0"),
            (count(999), "999"),
            (count(4_096), "4,096"),
            (count(12_345_678), "12,345,678"),
            (significant(0.05), "0.05"),
            (significant(1.0), "1"),
            (significant(12.345), "12.3"),
            (significant(123_456.0), "123,456"),
            (si(1_843_000.0), "1.84 M"),
            (si(999_900.0), "1 M"),
            (si(920_400.0), "920 k"),
            (si(12.0), "12"),
            (duration(850.0), "850 ns"),
            (duration(1_234_000.0), "1.23 ms"),
            (duration(999_999.0), "1 ms"),
            (bytes(3_145_728.0), "3 MiB"),
            (quantity(1_843_000.0, "records/s"), "1.84 M records/s"),
            (quantity(700.0, "ns"), "700 ns"),
            (quantity(1.84, "ratio"), "1.84 ×"),
            (percentile(99.99), "99.99 %"),
            (percentile(50.0), "50 %"),
            (counted(1, "run", "runs"), "1 run"),
        ];
        for (written, expected) in cases {
            assert_eq!(&written.replace('\u{a0}', " "), expected);
        }
    }
}
