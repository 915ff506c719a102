//! The dashboard: in a real browser, and who may see it.

mod browser;
pub mod hot;

use std::sync::Arc;
use std::time::Duration;

use keyway::demo::postgres::Signal;
use keyway::demo::shop::{DATABASE, HOT_USER, USER, USERS};
use libtest_mimic::Trial;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::harness::{
    APP_PASSWORD, Fallible, Harness, KeywayProcess, Outcome, Shared, ShopFixture, assert_hits, connect, until,
};
pub use browser::Browser;

/// Of as many connections, each with a statement every few milliseconds: a stream to look at.
const LOAD_CONNECTIONS: usize = 4;
const LOAD_PAUSE: Duration = Duration::from_millis(8);
const TOKEN: &str = "a-token-of-tests-0123456789";
const READ_TIMEOUT: Duration = Duration::from_secs(30);

pub fn tests(harness: &Arc<Harness>) -> Vec<Trial> {
    vec![
        harness.test("page::in_a_browser", in_a_browser),
        harness.test("page::a_token_comes_and_goes_with_a_reload", a_token_comes_and_goes_with_a_reload),
        harness.test("page::streams_are_bounded_and_end_with_the_process", streams_are_bounded_and_end),
    ]
}

/// The shop's servers behind a Keyway with these settings at the top of its file.
async fn start(harness: &Shared, settings: &str) -> Fallible<KeywayProcess> {
    let shop = harness.shop().await?;
    harness.start_keyway(|listen, admin| config(shop, settings, listen, admin)).await
}

fn config(shop: &ShopFixture, settings: &str, listen: &str, admin: &str) -> String {
    let text = shop.shop.config_text(listen, admin);
    format!("{settings}\n{}", text.replace("redact_keys = false\n", ""))
}

/// Reads of users, half of them of one, and updates that change nothing, until it is dropped.
struct Load(#[expect(dead_code, reason = "held to be dropped")] JoinSet<()>);

impl Load {
    async fn start(keyway: &KeywayProcess) -> Fallible<Load> {
        let mut running = JoinSet::new();
        for connection in 0..LOAD_CONNECTIONS {
            let client = connect(&keyway.url(USER, APP_PASSWORD, DATABASE)).await?;
            let read = client.prepare("SELECT name, email FROM users WHERE user_id = $1").await?;
            let write = client.prepare("UPDATE users SET name = name WHERE user_id = $1").await?;
            running.spawn(async move {
                for step in connection as i64.. {
                    let other = step * 7_919 % USERS + 1;
                    let user_id = if step % 2 == 0 { HOT_USER } else { other };
                    let statement = if step % 9 == 0 { &write } else { &read };
                    if client.execute(statement, &[&user_id]).await.is_err() {
                        return;
                    }
                    sleep(LOAD_PAUSE).await;
                }
            });
        }
        Ok(Load(running))
    }
}

async fn in_a_browser(harness: Arc<Shared>) -> Outcome {
    let keyway = start(&harness, &format!("admin_token = \"{TOKEN}\"")).await?;
    let (_load, mut browser) = (Load::start(&keyway).await?, Browser::start(&harness).await?);
    let root = format!("http://{}/", keyway.admin());
    browser.look(1_280, 900, "light").await?;
    logs_in(&mut browser, &root).await?;
    renders(&mut browser).await?;
    updates_by_itself(&mut browser).await?;
    filters(&mut browser, &keyway, &harness).await?;
    hot::keep(&mut browser).await?;
    hot::is_in_danger(&mut browser, "s2").await?;
    hot::is_advised_to_isolate(&mut browser, "s2").await?;
    draws_the_heat_map(&mut browser).await?;
    hot::colours_by_each_metric(&mut browser).await?;
    hot::filters_keys(&mut browser).await?;
    can_be_used_by_keyboard(&mut browser).await?;
    has_colours_to_choose(&mut browser, &root).await?;
    fits_a_phone(&mut browser, &root).await?;
    reads_without_a_script(&mut browser, &root).await?;
    // The answer to the first look, at which there was no token yet.
    assert!(browser.complaints().len() <= 2, "{:#?}", browser.complaints());
    hot::kept_to_itself(&browser, &root, |it| it.contains("401 (Unauthorized)"))
}

/// By the keyboard alone.
async fn logs_in(browser: &mut Browser, root: &str) -> Outcome {
    browser.open(root).await?;
    browser.until("the token is asked for", "document.activeElement.name === 'token'").await?;
    assert_eq!(browser.count("#topology").await?, 0, "nothing is shown before");
    browser.write("a-wrong-token-0123456789").await?;
    browser.press("Enter").await?;
    browser.until("it is refused", "document.body.innerText.includes('that is not the token')").await?;
    browser.until("it asks again", "document.activeElement.name === 'token'").await?;
    browser.write(TOKEN).await?;
    browser.press("Enter").await?;
    browser.until("the page is there", "document.querySelector('#topology .shard')").await?;
    assert_eq!(browser.text("document.cookie").await?, "", "no script can read the login");
    Ok(())
}

async fn renders(browser: &mut Browser) -> Outcome {
    browser.until("it is live", "document.getElementById('live').className === 'on'").await?;
    assert_eq!(browser.text("document.title").await?, "keyway");
    assert_eq!(browser.count("#topology .shard").await?, 2);
    let served = "document.querySelectorAll('#topology .server.primary .state.ok, #topology .server.replica .state.ok')";
    browser.until("two primaries and two replicas serve", &format!("{served}.length === 4")).await?;
    browser
        .until("lag is shown", "/lag \\d+ ms/.test(document.getElementById('topology').innerText)")
        .await?;
    assert_eq!(browser.count("#load tbody tr").await?, 2);
    assert_eq!(browser.count("#pools tbody tr").await?, 4);
    let styled = browser.text("getComputedStyle(document.querySelector('#topology')).display").await?;
    let grid = browser.text("getComputedStyle(document.querySelector('main')).display").await?;
    assert_eq!((&styled[..], &grid[..]), ("block", "grid"), "the style sheet is in force");
    Ok(())
}

async fn updates_by_itself(browser: &mut Browser) -> Outcome {
    let requests = "document.getElementById('requests').textContent";
    browser.until("requests are counted", &format!("parseFloat({requests}) > 0")).await?;
    let before = browser.text(&format!("window.before = {requests}")).await?;
    // The node stays: what a reader has marked stays marked.
    browser.value("window.node = document.getElementById('requests')").await?;
    browser.until("the figure changes", &format!("{requests} !== {before:?}")).await?;
    assert_eq!(browser.value("window.node === document.getElementById('requests')").await?, true);
    let line = "document.querySelector('#load .spark polyline').getAttribute('points').length > 0";
    browser.until("the line of the last minutes grows", line).await
}

async fn filters(browser: &mut Browser, keyway: &KeywayProcess, harness: &Shared) -> Outcome {
    let replica = harness.shop().await?.shop.shards[1].replicas[0].address();
    let servers = |count: u32| format!("document.querySelectorAll('#topology .server').length === {count}");
    browser.click("#view input[type=search]").await?;
    browser.write(&replica).await?;
    browser.until("one server fits", &servers(1)).await?;
    assert!(browser.text("document.querySelector('#topology .server').innerText").await?.contains(&replica));
    assert_eq!(browser.count("#pools tbody tr").await?, 1);
    assert_eq!(browser.text("document.activeElement.name").await?, "text", "the focus stays");
    let link = browser.text("location.search").await?;
    assert!(link.contains("text=127.0.0.1"), "{link}");
    assert!(keyway.http("/healthz").await.is_ok());
    // The link is the view.
    browser.value("window.stays = true").await?;
    browser.value("location.reload()").await?;
    browser.until("it is loaded anew", "window.stays === undefined").await?;
    browser
        .until("the view is the link's", &format!("document.readyState === 'complete' && {}", servers(1)))
        .await?;
    browser.value("(() => { const it = document.querySelector('#view input[type=search]'); it.value = ''; it.dispatchEvent(new Event('input', { bubbles: true })); })()").await?;
    browser.until("all servers are back", &servers(4)).await?;
    browser.value("(() => { const it = document.querySelector('select[name=shard]'); it.value = 's2'; it.dispatchEvent(new Event('input', { bubbles: true })); })()").await?;
    browser.until("one shard is shown", &servers(2)).await?;
    assert_eq!(browser.count("#load tbody tr").await?, 1);
    browser.until("it lives on", "document.getElementById('live').className === 'on'").await?;
    browser.value("(() => { const it = document.querySelector('select[name=shard]'); it.value = ''; it.dispatchEvent(new Event('input', { bubbles: true })); })()").await?;
    browser.until("all shards are back", &servers(4)).await
}

async fn draws_the_heat_map(browser: &mut Browser) -> Outcome {
    browser
        .until(
            "the heat map is drawn",
            "document.querySelectorAll('.cells path[data-level]:not([d=\"\"])').length > 0",
        )
        .await?;
    assert_eq!(browser.count(".bands g").await?, 2, "a band for each shard");
    assert!(browser.count("#heat-table tbody tr").await? >= 2);
    let sentence = browser.text("document.querySelector('.shape').innerText").await?;
    assert!(sentence.ends_with('.'), "{sentence}");
    let hottest = "document.querySelector('[data-level]:not([d=\"\"])').getAttribute('class')";
    let before = browser.text(hottest).await?;
    browser.value("(() => { const it = document.querySelector('[name=brightness]'); it.value = 6; it.dispatchEvent(new Event('input', { bubbles: true })); })()").await?;
    browser.until("brightness moves the colours", &format!("{hottest} !== {before:?}")).await
}

async fn can_be_used_by_keyboard(browser: &mut Browser) -> Outcome {
    const STOPS_MAX: usize = 60;
    browser.value("document.activeElement.blur(); window.scrollTo(0, 0)").await?;
    let (mut stops, mut reached) = (Vec::new(), false);
    for _ in 0..STOPS_MAX {
        browser.press("Tab").await?;
        let stop = browser
            .text("(() => { const it = document.activeElement; return it.nodeName + '.' + it.className; })()")
            .await?;
        let outline = browser.text("getComputedStyle(document.activeElement).outlineStyle").await?;
        assert_ne!(outline, "none", "the focus is seen on {stop}");
        reached = stop == "DIV.plot";
        stops.push(stop);
        if reached {
            break;
        }
    }
    assert!(reached, "{stops:?}");
    assert!(
        stops.iter().any(|it| it.starts_with("SELECT")) && stops.iter().any(|it| it.starts_with("INPUT"))
    );
    let card = "document.getElementById('card')";
    let shown = |what: &str| format!("!{card}.hidden && {card}.innerText.includes('{what}')");
    browser.press("ArrowLeft").await?;
    browser.until("the card of a range", &shown("on shard s")).await?;
    let told = browser.text(&format!("{card}.innerText")).await?;
    assert!(told.contains("calls/s") && told.contains(" % of that time"), "{told}");
    browser.press("ArrowDown").await?;
    browser.until("the card of the next range", &format!("{card}.innerText !== {told:?}")).await?;
    assert_eq!(browser.count(".cursor").await?, 1);
    browser.press("Escape").await?;
    browser
        .until("the card is gone", &format!("{card}.hidden && !document.querySelector('.cursor')"))
        .await?;
    browser.click(".plot").await?;
    browser.until("a tap opens it too", &shown("on shard s")).await
}

async fn has_colours_to_choose(browser: &mut Browser, root: &str) -> Outcome {
    let back = "getComputedStyle(document.body).backgroundColor";
    let light = browser.text(back).await?;
    browser.look(1_280, 900, "dark").await?;
    browser.until("it is dark as the system is", &format!("{back} !== {light:?}")).await?;
    let dark = browser.text(back).await?;
    browser.click("#theme button[value=light]").await?;
    browser.until("it is light as was chosen", &format!("{back} === {light:?}")).await?;
    browser.open(root).await?;
    assert_eq!(browser.text(back).await?, light, "the choice is kept");
    browser.click("#theme button[value=auto]").await?;
    browser.until("it is as the system is again", &format!("{back} === {dark:?}")).await
}

async fn fits_a_phone(browser: &mut Browser, root: &str) -> Outcome {
    for scheme in ["light", "dark"] {
        browser.look(360, 740, scheme).await?;
        browser.open(root).await?;
        browser.until("keys are shown", "document.querySelector('#keys tbody tr')").await?;
        let over = "[...document.querySelectorAll('main *, header, #view')].filter((it) => !it.closest('.scroll, pre, svg') && it.getBoundingClientRect().right > innerWidth + 1).map((it) => it.outerHTML.slice(0, 90))";
        let wide = browser.value("[document.documentElement.scrollWidth, innerWidth]").await?;
        assert_eq!(wide[0], wide[1], "{}", browser.value(over).await?);
        assert_eq!(browser.value(over).await?, Value::Array(Vec::new()), "nothing stands out at the right");
    }
    Ok(())
}

async fn reads_without_a_script(browser: &mut Browser, root: &str) -> Outcome {
    let off = serde_json::json!({ "value": true });
    browser.call("Emulation.setScriptExecutionDisabled", off).await?;
    browser.look(1_280, 900, "light").await?;
    browser.open(&format!("{root}?shard=s2&metric=reads&last=1h")).await?;
    assert_eq!(browser.value("document.documentElement.classList.contains('js')").await?, false);
    assert_eq!(browser.count("#topology .shard").await?, 1);
    assert_eq!(browser.text("document.querySelector('select[name=metric]').value").await?, "reads");
    let shown = "getComputedStyle(document.querySelector('#view .submit')).display !== 'none'";
    assert_eq!(browser.value(shown).await?, true, "a form is sent by its button");
    browser.click("#view .submit").await?;
    browser
        .until(
            "the same view again",
            "location.search.includes('shard=s2') && location.search.includes('last=1h')",
        )
        .await
}

/// Head and body of the answer to a request on the HTTP side.
async fn ask(keyway: &KeywayProcess, path: &str, header: &str) -> Fallible<(String, String)> {
    let mut stream = TcpStream::connect(keyway.admin()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(READ_TIMEOUT, stream.read_to_string(&mut answer)).await??;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no end of the HTTP header")?;
    Ok((head.to_owned(), body.to_owned()))
}

async fn a_token_comes_and_goes_with_a_reload(harness: Arc<Shared>) -> Outcome {
    let shop = harness.shop().await?;
    let keyway = start(&harness, "").await?;
    let status = async |path: &str, header: &str| {
        let (head, _) = ask(&keyway, path, header).await?;
        Fallible::Ok(head.split(' ').nth(1).ok_or("no status")?.parse::<u16>()?)
    };
    for path in ["/", "/api/status", &format!("/api/hotspots?database={DATABASE}")] {
        assert_eq!(status(path, "").await?, 200, "{path}: it is for this machine");
        assert_eq!(status(path, "X-Forwarded-For: 203.0.113.7\r\n").await?, 403, "{path}: and not passed on");
    }
    let with =
        |settings: &'static str| move |listen: &str, admin: &str| config(shop, settings, listen, admin);
    let (first, second) =
        ("Authorization: Bearer 0123456789abcdef\r\n", "Authorization: Bearer fedcba9876543210\r\n");
    keyway.reload(with("admin_token = \"0123456789abcdef\"")).await?;
    assert_eq!((status("/", "").await?, status("/api/status", first).await?), (401, 200));
    assert_eq!(status("/metrics", "").await?, 200, "scrapers need none");
    keyway.reload(with("admin_token = \"fedcba9876543210\"")).await?;
    assert_eq!((status("/api/status", first).await?, status("/api/status", second).await?), (401, 200));
    keyway.write_config(with("admin_token = \"short\""))?;
    keyway.signal(Signal::HUP)?;
    until("it is refused", async || Ok(keyway.log().contains("`admin_token` is too short"))).await?;
    assert_eq!(status("/api/status", second).await?, 200, "the one before holds");
    assert!(!keyway.log().contains("fedcba9876543210"), "no token is in the log");
    keyway.reload(with("")).await?;
    assert_eq!(status("/", "").await?, 200);
    let refused = keyway.metrics().await?;
    assert!(refused.contains("keyway_admin_refusals_total{reason=\"token\"} 2"), "{refused}");
    Ok(())
}

async fn streams_are_bounded_and_end(harness: Arc<Shared>) -> Outcome {
    let mut keyway = start(&harness, "admin_streams_max = 1").await?;
    let mut stream = TcpStream::connect(keyway.admin()).await?;
    stream.write_all(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let (mut text, mut buffer) = (String::new(), [0; 16_384]);
    while text.matches("event: status").count() < 2 {
        let count = timeout(READ_TIMEOUT, stream.read(&mut buffer)).await??;
        assert!(count > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let data = text.lines().find_map(|it| it.strip_prefix("data: ")).ok_or("no data")?;
    let status: Value = serde_json::from_str(data)?;
    assert_eq!(status["databases"][0]["shards"][1]["name"], "s2", "{status}");
    let (head, body) = ask(&keyway, "/page/events", "").await?;
    assert!(head.contains(" 503 ") && body.contains("admin_streams_max"), "{head} {body}");
    assert_hits(&keyway, "admin_streams_max", 1).await?;
    // An open stream does not hold the end up.
    keyway.signal(Signal::TERM)?;
    assert!(keyway.wait_until_ended().await?.success());
    Ok(())
}
