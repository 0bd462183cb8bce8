//! A drawing surface over plotters' SVG backend: CSS pixels with fractions, and colours by purpose.
//! The backend knows only RGB triples, so each purpose is drawn in a triple of its own, which becomes a CSS class
//! afterwards; the page's style sheet decides what it looks like in light, dark and print.

use std::fmt::Write;

use plotters::prelude::{DrawingBackend, RGBColor, SVGBackend, ShapeStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontFamily, FontStyle, IntoFont, TextStyle};

use crate::page::ReportError;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Text that is read first.
    Ink,
    /// Labels of axes and notes.
    Muted,
    /// Lines of the grid.
    Grid,
    /// Baselines and the reference line of a ratio.
    Axis,
    /// The area that is beyond what can be said.
    Shade,
    /// The page itself, for the inside of hollow marks.
    Paper,
    /// A system, by its index.
    Series(usize),
    /// A system's line where it is a guess, dashed.
    Dashed(usize),
}

/// Series have this many colours, and start over after them.
const SERIES: usize = 6;
/// The backend's coordinates are whole numbers; this many of them make a CSS pixel.
const UNIT: f64 = 8.0;

/// A surface of a given size in CSS pixels.
pub(crate) struct Canvas<'a> {
    backend: SVGBackend<'a>,
    /// Width in CSS pixels.
    pub(crate) width: f64,
    /// Height in CSS pixels.
    pub(crate) height: f64,
}

/// Draws one picture and returns it as SVG text that fits into an HTML page.
pub(crate) fn picture(
    width: f64,
    height: f64,
    label: &str,
    draw: impl Fn(&mut Canvas) -> Result<(), ReportError>,
) -> Result<String, ReportError> {
    let mut svg = String::new();
    {
        let size = (to_units(width) as u32, to_units(height) as u32);
        let mut canvas = Canvas { backend: SVGBackend::with_string(&mut svg, size), width, height };
        draw(&mut canvas)?;
        canvas.backend.present().map_err(ReportError::drawing)?;
    }
    Ok(finish(&svg, label))
}

/// A series' mark for a legend, 22 by 12 CSS pixels.
pub(crate) fn legend_mark(series: usize) -> Result<String, ReportError> {
    picture(22.0, 12.0, "", |canvas| {
        canvas.line((0.0, 6.0), (22.0, 6.0), Paint::Series(series), 2.0)?;
        canvas.mark((11.0, 6.0), series, true)
    })
}

impl Canvas<'_> {
    /// Whether the picture is for a narrow window.
    pub(crate) fn is_narrow(&self) -> bool {
        self.width < 500.0
    }

    /// A straight line.
    pub(crate) fn line(
        &mut self,
        from: (f64, f64),
        to: (f64, f64),
        paint: Paint,
        width: f64,
    ) -> Result<(), ReportError> {
        self.backend.draw_line(units(from), units(to), &style(paint, width)).map_err(ReportError::drawing)?;
        Ok(())
    }

    /// A line through points.
    pub(crate) fn path(&mut self, points: &[(f64, f64)], paint: Paint, width: f64) -> Result<(), ReportError> {
        self.backend
            .draw_path(points.iter().map(|point| units(*point)), &style(paint, width))
            .map_err(ReportError::drawing)?;
        Ok(())
    }

    /// A filled rectangle.
    pub(crate) fn area(&mut self, from: (f64, f64), to: (f64, f64), paint: Paint) -> Result<(), ReportError> {
        self.backend.draw_rect(units(from), units(to), &style(paint, 0.0), true).map_err(ReportError::drawing)?;
        Ok(())
    }

    /// A series' mark: colour and shape both tell it from the others. A hollow mark is filled with the page's colour.
    pub(crate) fn mark(&mut self, at: (f64, f64), series: usize, is_solid: bool) -> Result<(), ReportError> {
        self.shape(at, series, 5.0, Paint::Series(series))?;
        if !is_solid {
            self.shape(at, series, 3.0, Paint::Paper)?;
        }
        Ok(())
    }

    fn shape(&mut self, (x, y): (f64, f64), series: usize, radius: f64, paint: Paint) -> Result<(), ReportError> {
        let corners: Vec<(f64, f64)> = match series % 4 {
            0 => {
                self.backend
                    .draw_circle(units((x, y)), to_units(radius * 0.92) as u32, &style(paint, 0.0), true)
                    .map_err(ReportError::drawing)?;
                return Ok(());
            }
            1 => vec![(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
            2 => vec![(0.0, -1.15), (1.05, 0.8), (-1.05, 0.8)],
            _ => vec![(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)],
        };
        let points = corners.iter().map(|(dx, dy)| units((x + dx * radius, y + dy * radius)));
        self.backend.fill_polygon(points, &style(paint, 0.0)).map_err(ReportError::drawing)?;
        Ok(())
    }

    /// Text of a height in CSS pixels; the point is its left, middle or right end, at half its height.
    pub(crate) fn text(
        &mut self,
        at: (f64, f64),
        text: &str,
        align: HPos,
        paint: Paint,
        height: f64,
    ) -> Result<(), ReportError> {
        // The backend divides a font's size by 1.24.
        let font = (FontFamily::SansSerif, height * UNIT * 1.24, FontStyle::Normal).into_font();
        let colour = colour(paint);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(align, VPos::Center));
        self.backend.draw_text(text, &style, units(at)).map_err(ReportError::drawing)?;
        Ok(())
    }

    /// A horizontal interval with a mark at its value.
    pub(crate) fn whisker(
        &mut self,
        (low, value, high): (f64, f64, f64),
        y: f64,
        series: usize,
        is_solid: bool,
    ) -> Result<(), ReportError> {
        self.line((low, y), (high, y), Paint::Series(series), 2.0)?;
        for end in [low, high] {
            self.line((end, y - 4.0), (end, y + 4.0), Paint::Series(series), 2.0)?;
        }
        self.mark((value, y), series, is_solid)
    }
}

fn to_units(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

fn units((x, y): (f64, f64)) -> (i32, i32) {
    (to_units(x), to_units(y))
}

fn style(paint: Paint, width: f64) -> ShapeStyle {
    ShapeStyle::from(&colour(paint)).stroke_width(to_units(width).unsigned_abs())
}

/// The triple that stands for a purpose until `finish` replaces it.
fn colour(paint: Paint) -> RGBColor {
    let (kind, index) = match paint {
        Paint::Ink => (1, 0),
        Paint::Muted => (2, 0),
        Paint::Grid => (3, 0),
        Paint::Axis => (4, 0),
        Paint::Shade => (5, 0),
        Paint::Paper => (6, 0),
        Paint::Series(index) => (7, (index % SERIES) as u8),
        Paint::Dashed(index) => (8, (index % SERIES) as u8),
    };
    RGBColor(1, kind, index)
}

fn class(paint: Paint) -> String {
    match paint {
        Paint::Ink => "ink".to_owned(),
        Paint::Muted => "muted".to_owned(),
        Paint::Grid => "grid".to_owned(),
        Paint::Axis => "axis".to_owned(),
        Paint::Shade => "shade".to_owned(),
        Paint::Paper => "paper".to_owned(),
        Paint::Series(index) => format!("s{}", index % SERIES),
        Paint::Dashed(index) => format!("s{} dashed", index % SERIES),
    }
}

/// Replaces colours with classes, and the fixed size with a name for people who cannot see the picture.
fn finish(svg: &str, label: &str) -> String {
    let plain = [Paint::Ink, Paint::Muted, Paint::Grid, Paint::Axis, Paint::Shade, Paint::Paper];
    let series = (0..SERIES).flat_map(|index| [Paint::Series(index), Paint::Dashed(index)]);
    let mut text = svg.replace("\n</text>", "</text>").replace(" font-family=\"sans-serif\"", "");
    text = text.replace(" opacity=\"1\"", "");
    for paint in plain.into_iter().chain(series) {
        let RGBColor(red, green, blue) = colour(paint);
        let class = class(paint);
        for (attribute, letter) in [("fill", 'f'), ("stroke", 'k')] {
            let drawn = format!("{attribute}=\"#{red:02X}{green:02X}{blue:02X}\"");
            text = text.replace(&drawn, &format!("class=\"{letter}-{class}\""));
        }
    }
    let (head, rest) = text.split_once('>').expect("the backend opens the svg element first");
    let view = head.split_once("viewBox=").map_or("", |(_, after)| after);
    let mut finished = String::with_capacity(text.len() + label.len());
    let named = if label.is_empty() {
        "aria-hidden=\"true\"".to_owned()
    } else {
        format!("role=\"img\" aria-label=\"{}\"", minijinja::HtmlEscape(label))
    };
    write!(finished, "<svg {named} viewBox={view}>{rest}").expect("writing to a string does not fail");
    finished
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colour_is_left_fixed_and_every_shape_has_a_class() {
        let svg = picture(100.0, 50.0, "a < b", |canvas| {
            for series in 0..8 {
                canvas.mark((10.0, 10.0), series, false)?;
                canvas.line((0.0, 0.0), (1.5, 2.5), Paint::Dashed(series), 1.0)?;
            }
            canvas.area((0.0, 0.0), (9.0, 9.0), Paint::Shade)?;
            canvas.text((5.0, 5.0), "x & y", HPos::Left, Paint::Muted, 12.0)
        })
        .expect("drawing into a string does not fail");
        assert!(!svg.contains("=\"#"), "a fixed colour is left: {svg}");
        assert!(svg.starts_with("<svg role=\"img\" aria-label=\"a &lt; b\" viewBox=\"0 0 800 400\""), "{svg}");
        for expected in ["k-s5 dashed", "f-s3", "f-paper", "f-shade", "f-muted", "x &amp; y"] {
            assert!(svg.contains(expected), "{expected} is missing: {svg}");
        }
    }
}
