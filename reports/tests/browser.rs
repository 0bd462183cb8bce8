//! The page in a real browser, where a Chromium is found on PATH: it is not blank, and nothing overflows to the side,
//! in a wide and a narrow window, in light and in dark. Without a browser only the page's text is checked.
//! The page and a picture of each are left in the folder that MQASSAY_KEEP_SCREENSHOTS names, if set.

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fixture::Fixture;
use fixture::comparison::two_runs;
use fixture::story::lost_write;
use mqassay_reports::{render, render_comparison, render_story};

/// Tells the widest part of the page through its title; the page itself has no script.
const PROBE: &str = "<script>addEventListener('load', () => {
  const page = document.documentElement;
  const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') &&
    e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className);
  parent.postMessage(`probe:${innerWidth}:${page.scrollWidth}:${[...new Set(wide)].slice(0, 5)}`, '*');
});</script>";

#[test]
fn a_browser_shows_the_pages_without_overflow() {
    let report = render(&Fixture::full().with_failures().build()).expect("the fixture renders");
    show("report", &report);
    show("comparison", &render_comparison(&two_runs()).expect("the comparison renders"));
    show("explain", &render_story(&lost_write()).expect("the story renders"));
}

fn show(name: &str, page: &str) {
    let Some(browser) = find_browser() else {
        println!("no Chromium found on PATH: only the text of the page was checked");
        assert!(page.contains("<main>") && page.contains("name=\"viewport\""));
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(format!("{name}.html"));
    std::fs::write(&file, page).expect("the page is written");
    keep(&format!("{name}.html"), page.as_bytes());
    std::fs::write(folder.path().join("probed.html"), format!("{page}{PROBE}")).expect("the probe is written");
    let blank = folder.path().join("blank.html");
    std::fs::write(&blank, "<!doctype html><title>blank</title>").expect("the blank page is written");
    let blank = framed(folder.path(), &blank, 1280);
    let empty = screenshot(&browser, folder.path(), &blank, 1280, false);
    for width in [1280, 390] {
        // Colours move nothing, so that one of them is enough here.
        assert_no_overflow(&browser, folder.path(), width);
        for is_dark in [false, true] {
            let shown = screenshot(&browser, folder.path(), &framed(folder.path(), &file, width), width, is_dark);
            assert!(
                shown.len() > 4 * empty.len(),
                "a picture of {} bytes against {} of a blank page, at {width} pixels",
                shown.len(),
                empty.len()
            );
            keep(&format!("{name}-{width}-{}.png", if is_dark { "dark" } else { "light" }), &shown);
        }
    }
}

/// A page that holds another in a frame of the given width, because a headless window cannot be as narrow as a telephone.
fn framed(folder: &Path, page: &Path, width: u32) -> PathBuf {
    let name = page.file_name().and_then(|name| name.to_str()).expect("our own file name");
    let frame = format!(
        "<!doctype html><style>body{{margin:0}}iframe{{border:0;display:block}}</style>\
         <iframe src=\"{name}\" width=\"{width}\" height=\"{HEIGHT}\"></iframe><script>\
         addEventListener('message', event => document.title = event.data)</script>"
    );
    let path = folder.join(format!("framed-{width}-{name}"));
    std::fs::write(&path, frame).expect("the frame is written");
    path
}

fn assert_no_overflow(browser: &Path, folder: &Path, width: u32) {
    let frame = framed(folder, &folder.join("probed.html"), width);
    let output = run(browser, folder, &frame, false, &["--dump-dom".to_owned(), window(width)]);
    let dom = String::from_utf8_lossy(&output.stdout);
    let probe = dom.split("<title>probe:").nth(1).and_then(|rest| rest.split("</title>").next());
    let probe = probe.unwrap_or_else(|| panic!("no probe in {dom}"));
    let parts: Vec<&str> = probe.splitn(3, ':').collect();
    assert_eq!(parts[0], width.to_string(), "the frame has another width");
    assert_eq!(parts[1], parts[0], "the page is wider than its window: {}", parts[2]);
    assert_eq!(parts[2], "", "elements reach out of the window");
}

const HEIGHT: u32 = 9000;

fn window(width: u32) -> String {
    format!("--window-size={},{HEIGHT}", width.max(500))
}

fn screenshot(browser: &Path, folder: &Path, page: &Path, width: u32, is_dark: bool) -> Vec<u8> {
    let picture = folder.join("picture.png");
    let arguments = [format!("--screenshot={}", picture.display()), window(width)];
    let output = run(browser, folder, page, is_dark, &arguments);
    std::fs::read(&picture)
        .unwrap_or_else(|error| panic!("no picture ({error}): {}", String::from_utf8_lossy(&output.stderr)))
}

fn run(browser: &Path, folder: &Path, page: &Path, is_dark: bool, arguments: &[String]) -> Output {
    let profile = tempfile::tempdir_in(folder).expect("a folder for the browser's profile");
    Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--disable-dev-shm-usage", "--timeout=20000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", if is_dark { 0 } else { 1 }))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts")
}

fn find_browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name))).find(|file| file.is_file())
}

fn keep(name: &str, content: &[u8]) {
    if let Some(folder) = std::env::var_os("MQASSAY_KEEP_SCREENSHOTS") {
        std::fs::create_dir_all(&folder).expect("the folder can be made");
        std::fs::write(Path::new(&folder).join(name), content).expect("the picture is kept");
    }
}
