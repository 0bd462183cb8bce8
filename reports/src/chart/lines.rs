//! The frame of a chart of lines: a grid with labelled ticks on both axes, and a series drawn into it.
//! Not here: what the values mean; `spectrum` and `sweep` bring them.

use plotters::style::text_anchor::HPos;

use super::canvas::{Canvas, Paint};
use super::scale::Axis;
use crate::page::ReportError;

/// A labelled tick.
pub(super) type Tick = (f64, String);

/// Where the values are drawn, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Draws the grid; the names stand horizontally, the vertical axis' one above it and the horizontal one's below.
pub(super) fn grid(
    canvas: &mut Canvas,
    frame: Frame,
    (x, x_ticks, x_name): (&Axis, &[Tick], &str),
    (y, y_ticks, y_name): (&Axis, &[Tick], &str),
) -> Result<(), ReportError> {
    canvas.text((0.0, frame.top - 16.0), y_name, HPos::Left, Paint::Muted, 11.5)?;
    for (value, label) in y_ticks {
        let at = y.at(*value);
        canvas.line((frame.left, at), (frame.right, at), Paint::Grid, 1.0)?;
        canvas.text((frame.left - 8.0, at), label, HPos::Right, Paint::Muted, 11.5)?;
    }
    for (value, label) in x_ticks {
        let at = x.at(*value);
        canvas.line((at, frame.bottom), (at, frame.bottom + 4.0), Paint::Axis, 1.0)?;
        canvas.text((at, frame.bottom + 14.0), label, HPos::Center, Paint::Muted, 11.5)?;
    }
    canvas.line((frame.left, frame.bottom), (frame.right, frame.bottom), Paint::Axis, 1.0)?;
    if !x_name.is_empty() {
        let middle = (frame.left + frame.right) / 2.0;
        canvas.text((middle, frame.bottom + 34.0), x_name, HPos::Center, Paint::Muted, 11.5)?;
    }
    Ok(())
}
