//! What is hot, as a real browser shows it: the planted key, its bounds, what to do about it. Nobody loads the page anew.

use std::path::Path;

use keyway::demo::shop::HOT_USER;
use serde_json::json;

use super::browser::Browser;
use crate::harness::{Fallible, Outcome};

/// Pictures for the README are written where this is set, and are small.
pub const SCREENSHOTS: &str = "KEYWAY_WRITE_SCREENSHOTS";
const SCREENSHOT_BYTES_MAX: usize = 300_000;
/// The document that is looked at from here on. Loaded anew it would be another one.
const DOCUMENT: &str = "window.isTheSame";

pub async fn open(browser: &mut Browser, root: &str) -> Outcome {
    browser.look(1_280, 900, "light").await?;
    browser.open(root).await?;
    keep(browser).await
}

pub async fn keep(browser: &mut Browser) -> Outcome {
    browser.value(&format!("{DOCUMENT} = true")).await?;
    browser.until("it is live", "document.getElementById('live').className === 'on'").await
}

async fn is_the_same(browser: &mut Browser) -> Outcome {
    assert_eq!(browser.value(DOCUMENT).await?, true, "the page was loaded anew");
    Ok(())
}

fn has(selector: &str, text: &str) -> String {
    let (selector, text) = (json!(selector), json!(text));
    format!("[...document.querySelectorAll({selector})].some((it) => it.innerText.includes({text}))")
}

/// The hot user is in danger: on top of the page, among its figures, and first of the keys.
pub async fn is_in_danger(browser: &mut Browser, shard: &str) -> Outcome {
    browser.until("the page warns of a key", &has("#alert .alert .badge.danger", "DANGER")).await?;
    browser.until("by its name", &has("#alert .alert code", &HOT_USER.to_string())).await?;
    browser.until("and its shard", &has("#alert .alert", &format!("on shard {shard}"))).await?;
    browser.until("a figure says so", "document.querySelector('#figures .hot dt')").await?;
    let row = "#keys tbody tr:first-child";
    browser.until("the key is the first", &has(&format!("{row}.hot code"), &HOT_USER.to_string())).await?;
    browser.until("it is in danger", &has(&format!("{row} .badge.danger"), "DANGER")).await?;
    assert!(browser.count(&format!("{row} svg.whisker.hot")).await? == 1, "its bounds are drawn");
    is_the_same(browser).await
}

/// The bounds of the hottest key's share of the calls have this between them, or are so near.
pub async fn has_bounds(browser: &mut Browser, share: f64, noise: f64) -> Outcome {
    let ends =
        "document.querySelector('#keys tbody tr').cells[5].innerText.match(/[0-9.]+/g).map((it) => it / 100)";
    let holds = format!(
        "(([lower, upper = lower]) => lower - {noise} <= {share} && {share} <= upper + {noise})({ends})"
    );
    browser.until("the page's bounds are those of the console", &holds).await
}

/// To isolate the key on this shard, with what to paste and what it brings.
pub async fn is_advised_to_isolate(browser: &mut Browser, shard: &str) -> Outcome {
    let pinned = format!("pinned = [{{ key = {HOT_USER}, shard = \"{shard}\" }}]");
    browser.until("the snippet isolates the key", &has("#advice pre", &pinned)).await?;
    let of_key = "[...document.querySelectorAll('#advice li')].find((it) => it.querySelector('pre'))";
    let told = browser.text(&format!("{of_key}.innerText")).await?;
    for part in ["One key", "by_user", "DANGER", "held in ", "max over mean ", "pinned "] {
        assert!(told.contains(part), "{part}: {told}");
    }
    browser.click("#advice .copy").await?;
    browser.until("it can be copied", &has("#advice .copy", "Copied")).await?;
    is_the_same(browser).await
}

pub async fn snippet(browser: &mut Browser) -> Fallible<String> {
    browser.text("document.querySelector('#advice pre').textContent").await
}

pub async fn has_a_line(browser: &mut Browser) -> Outcome {
    browser.until("the heat map is of one line", &has("#heat .shape", "One line: ")).await?;
    let label = "document.querySelector('.plot').getAttribute('aria-label')";
    browser.until("it is said to those who do not see it", &format!("{label}.includes('One line: ')")).await
}

/// What was advised was done: the key, as hot as before, is on that shard, load is even, and the reload is a line in the
/// heat map.
pub async fn is_even_again(browser: &mut Browser, shard: &str) -> Outcome {
    browser.until("no shard is hot", "!document.querySelector('.badge.warning')").await?;
    browser.until("the key has moved", &has("#keys tbody tr:first-child td", shard)).await?;
    let figure =
        "[...document.querySelectorAll('#figures div')].find((it) => it.innerText.includes('Max over mean'))";
    let value = format!("parseFloat({figure}.querySelector('dd').innerText)");
    browser.until("load is even", &format!("{figure} && {value} >= 1 && {value} < 1.2")).await?;
    browser.until("the reload is marked", "document.querySelector('.cells line.mark.reload')").await?;
    browser.until("in words too", &has("#heat .marks li", "configuration reloaded")).await?;
    is_the_same(browser).await
}

/// All seven ways to colour, chosen with the keyboard, each with its unit.
pub async fn colours_by_each_metric(browser: &mut Browser) -> Outcome {
    browser.value("document.querySelector('select[name=metric]').focus()").await?;
    let units = [
        ("reads", " reads/s"),
        ("writes", " writes/s"),
        ("rows", " rows/s"),
        ("bytes", "B/s"),
        ("time", "s per second"),
    ];
    for (metric, unit) in units {
        browser.press("ArrowDown").await?;
        let source = "document.querySelector('.plot').dataset.source";
        let shown = format!("{source}.includes('metric={metric}&') && {}", has("#heat .legend span", unit));
        browser.until(metric, &shown).await?;
        assert_eq!(browser.text("document.activeElement.name").await?, "metric", "the focus stays");
    }
    browser.press("ArrowDown").await?;
    browser.until("no errors to draw", &has("#heat .empty", "No key of by_user was named")).await?;
    assert!(browser.text("location.search").await?.contains("metric=errors"));
    for _ in 0..6 {
        browser.press("ArrowUp").await?;
    }
    browser.until("calls again", &has("#heat .legend span", " calls/s")).await?;
    assert!(browser.text("location.search").await?.contains("metric=calls"));
    is_the_same(browser).await
}

/// By a word, by the key and by its shard.
pub async fn filters_keys(browser: &mut Browser) -> Outcome {
    let rows = |count: &str| format!("document.querySelectorAll('#keys tbody tr').length {count}");
    browser.until("several keys", &rows("> 1")).await?;
    for text in ["danger", "advice of none"] {
        browser.click("#view input[type=search]").await?;
        browser.value("document.activeElement.select()").await?;
        browser.write(text).await?;
        let count = if text == "danger" { "=== 1" } else { "=== 0" };
        browser.until(text, &format!("{} && location.search.includes('text=')", rows(count))).await?;
    }
    browser.until("nor advice", "!document.querySelector('#advice li')").await?;
    browser.value("document.activeElement.select()").await?;
    browser.press("Backspace").await?;
    browser.until("all keys again", &rows("> 1")).await?;
    is_the_same(browser).await
}

pub async fn take_screenshots(browser: &mut Browser, root: &str) -> Outcome {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
    std::fs::create_dir_all(&images)?;
    let advice = Some(("section:has(#keys)", "section:has(#advice)"));
    for (name, (width, height), scheme, part) in [
        ("dashboard-light", (1_280, 1_720), "light", None),
        ("dashboard-dark", (1_280, 1_720), "dark", None),
        ("dashboard-phone", (360, 1_480), "dark", None),
        ("dashboard-advice", (1_280, 1_720), "light", advice),
    ] {
        browser.look(width, height, scheme).await?;
        browser.open(root).await?;
        browser.until("it is live", "document.getElementById('live').className === 'on'").await?;
        let picture = browser.screenshot(part).await?;
        assert!(picture.len() < SCREENSHOT_BYTES_MAX, "{name}: {} bytes", picture.len());
        std::fs::write(images.join(format!("{name}.png")), picture)?;
    }
    Ok(())
}

/// It has asked nobody else for anything, and complained of nothing but what is expected.
pub fn kept_to_itself(browser: &Browser, root: &str, expected: impl Fn(&str) -> bool) -> Outcome {
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|it| expected(it)), "{complaints:#?}");
    let requested = browser.requested();
    assert!(requested.len() > 3, "{requested:#?}");
    let elsewhere: Vec<_> =
        requested.iter().filter(|it| !it.starts_with(root) && !it.starts_with("data:")).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    Ok(())
}
