//! A real browser: Chromium without a window, spoken to over two pipes in the DevTools protocol, whose messages are JSON
//! with a zero byte behind each.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use keyway::demo::postgres::WorkDir;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::harness::{Fallible, Outcome, Shared};

/// It starts and answers in a second or two; a busy machine may take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// `scripts/install.sh` looks for the same.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// It talks to nobody but the pages that it is sent to. Its sandbox takes rights that containers have not.
const OPTIONS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];
/// The pipes are descriptors 3 and 4 by definition.
const WITH_PIPES: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// One page. The browser ends when this is dropped.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    last_id: u64,
    /// What it told without being asked.
    events: Vec<Value>,
    _profile: WorkDir,
}

impl Browser {
    pub async fn start(harness: &Shared) -> Fallible<Browser> {
        let profile = harness.fresh_dir()?;
        let program = program()?;
        let shell = harness.installation().tied_command(Path::new("/bin/sh"), "KILL");
        let mut command = Command::from(shell);
        command.args(["-c", WITH_PIPES]).arg(program).args(OPTIONS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.env("HOME", profile.path()).env("TZ", "UTC");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take().ok_or("no pipe to the browser")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe from the browser")?);
        let events = Vec::new();
        let mut browser =
            Browser { child, input, output, session: None, last_id: 0, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach).await?;
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page.enable", "Runtime.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({})).await?;
        }
        Ok(browser)
    }

    /// The result of a method.
    pub async fn call(&mut self, method: &str, params: Value) -> Fallible<Value> {
        self.last_id += 1;
        let id = self.last_id;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).await?;
        let answer = timeout(ANSWER_TIMEOUT, self.answer(id)).await;
        let mut answer = answer.map_err(|_| format!("the browser does not answer {method}"))??;
        if let Some(error) = answer.get("error") {
            return Err(format!("{method}: {error}").into());
        }
        Ok(answer["result"].take())
    }

    async fn answer(&mut self, id: u64) -> Fallible<Value> {
        loop {
            let mut bytes = Vec::new();
            if self.output.read_until(0, &mut bytes).await? == 0 {
                return Err(format!("the browser has ended: {:?}", self.child.try_wait()?).into());
            }
            bytes.pop();
            let message: Value = serde_json::from_slice(&bytes)?;
            if message["id"] == id {
                return Ok(message);
            }
            self.events.push(message);
        }
    }

    /// Opens an address and waits for its document.
    pub async fn open(&mut self, url: &str) -> Outcome {
        let opened = self.call("Page.navigate", json!({ "url": url })).await?;
        if let Some(error) = opened.get("errorText") {
            return Err(format!("{url}: {error}").into());
        }
        self.until("the document is there", "document.readyState === 'complete'").await
    }

    /// The value of an expression in the page.
    pub async fn value(&mut self, expression: &str) -> Fallible<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut found = self.call("Runtime.evaluate", params).await?;
        if let Some(thrown) = found.get("exceptionDetails") {
            return Err(format!("{expression}: {thrown}").into());
        }
        Ok(found["result"]["value"].take())
    }

    pub async fn text(&mut self, expression: &str) -> Fallible<String> {
        let value = self.value(expression).await?;
        value.as_str().map(str::to_owned).ok_or_else(|| format!("{expression} is {value}").into())
    }

    /// How many elements a selector finds.
    pub async fn count(&mut self, selector: &str) -> Fallible<u64> {
        let value = self.value(&format!("document.querySelectorAll({}).length", json!(selector))).await?;
        value.as_u64().ok_or_else(|| format!("{selector}: {value}").into())
    }

    /// Until an expression is true. While a document is on its way there may be none to ask.
    pub async fn until(&mut self, what: &str, expression: &str) -> Outcome {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let found = self.value(&format!("Boolean({expression})")).await;
            if matches!(found, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let page = self.text("document.body.innerText.slice(0, 3000)").await.unwrap_or_default();
                return Err(format!("not within {ANSWER_TIMEOUT:?}: {what}: {found:?}\n{page}").into());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Presses a key as a person would: `Tab`, `ArrowLeft`, `Enter`.
    pub async fn press(&mut self, key: &str) -> Fallible<()> {
        let code = match key {
            "Backspace" => 8,
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => return Err(format!("no code of key {other}").into()),
        };
        let mut event =
            json!({ "type": "rawKeyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", event.clone()).await?;
        if key == "Enter" {
            let char = json!({ "type": "char", "key": key, "code": key, "text": "\r" });
            self.call("Input.dispatchKeyEvent", char).await?;
        }
        event["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", event).await.map(drop)
    }

    /// Types into what has the focus.
    pub async fn write(&mut self, text: &str) -> Fallible<()> {
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// Clicks in the middle of the element.
    pub async fn click(&mut self, selector: &str) -> Fallible<()> {
        let place = format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{ block: 'center' }}); \
             const box = it.getBoundingClientRect(); return [box.left + box.width / 2, box.top + box.height / 2]; }})()",
            json!(selector)
        );
        let place = self.value(&place).await?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// A window of this size, and what the system prefers: `light` or `dark`.
    pub async fn look(&mut self, width: u32, height: u32, scheme: &str) -> Fallible<()> {
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.call("Emulation.setDeviceMetricsOverride", screen).await?;
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await.map(drop)
    }

    /// What the window shows, as PNG, or what is between two elements wherever they are.
    pub async fn screenshot(&mut self, between: Option<(&str, &str)>) -> Fallible<Vec<u8>> {
        let mut params = json!({ "format": "png" });
        if let Some((first, last)) = between {
            let of = |it: &str| format!("document.querySelector({}).getBoundingClientRect()", json!(it));
            let clip = format!(
                "(([a, b]) => ({{ x: 0, y: a.top + scrollY - 8, width: innerWidth, height: b.bottom - a.top + 16, scale: 1 }}))([{}, {}])",
                of(first),
                of(last)
            );
            params["clip"] = self.value(&clip).await?;
            params["captureBeyondViewport"] = true.into();
        }
        let shot = self.call("Page.captureScreenshot", params).await?;
        Ok(BASE64.decode(shot["data"].as_str().ok_or("no picture")?)?)
    }

    /// Addresses that were asked for since the start.
    pub fn requested(&self) -> Vec<String> {
        let requests = self.events.iter().filter(|it| it["method"] == "Network.requestWillBeSent");
        requests.filter_map(|it| Some(it["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    /// Exceptions that nobody caught, errors and warnings on the console, and what the browser itself complains of.
    pub fn complaints(&self) -> Vec<String> {
        let is_complaint = |it: &&Value| {
            let params = &it["params"];
            match it["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => {
                    matches!(params["type"].as_str(), Some("error" | "warning" | "assert"))
                }
                Some("Log.entryAdded") => {
                    matches!(params["entry"]["level"].as_str(), Some("error" | "warning"))
                }
                _ => false,
            }
        };
        self.events.iter().filter(is_complaint).map(ToString::to_string).collect()
    }
}

fn program() -> Fallible<PathBuf> {
    if let Some(program) = std::env::var_os("KEYWAY_CHROMIUM") {
        return Ok(program.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found =
        PROGRAMS.iter().flat_map(|it| places.iter().map(move |of| of.join(it))).find(|it| it.is_file());
    found.ok_or_else(|| "Chromium is missing: scripts/install.sh test installs it".into())
}
