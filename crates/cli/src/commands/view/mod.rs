//! `nocebo view`.

mod server;

use std::borrow::Cow;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nocebo_audit::{AuditError, Browse};
use sha2::{Digest, Sha256};

use crate::arguments::View;
use crate::failure::{Failure, Kind, OrFail};
use server::Answer;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("view.css");
const SCRIPT: &str = include_str!("view.js");

pub(crate) fn run(arguments: &View) -> Result<(), Failure> {
    let names = names(&arguments.results);
    let runs = arguments.results.iter().zip(&names).map(|(folder, name)| Browse::open(folder, name));
    let runs: Vec<Browse> = runs.collect::<Result<_, _>>().or_load()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).map_err(|error| {
        Failure::usage(format!("--port {}: 127.0.0.1 cannot be listened on: {error}", arguments.port))
    })?;
    let address = listener.local_addr().or_incomplete()?;
    let viewer = Viewer::new(runs)?;
    println!("http://{address}/ (to this machine only; end with Ctrl-C)");
    server::serve(&listener, &|path| viewer.answer(path)).or_incomplete()
}

/// What each results folder is called: its own name, with those above where two are alike.
fn names(folders: &[std::path::PathBuf]) -> Vec<String> {
    let name = |folder: &Path, parts: usize| {
        let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let words: Vec<Cow<'_, str>> = whole.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        words[words.len().saturating_sub(parts)..].join("/")
    };
    let unique = |names: &[String]| names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1);
    let of = |parts: usize| folders.iter().map(|folder| name(folder, parts)).collect::<Vec<_>>();
    let longest = (1..5).map(of).find(|names| unique(names));
    longest
        .unwrap_or_else(|| folders.iter().enumerate().map(|(n, folder)| format!("{} {n}", name(folder, 1))).collect())
}

/// What is served.
struct Viewer {
    runs: Vec<Browse>,
    page: String,
    policy: String,
    summary: Vec<u8>,
}

impl Viewer {
    fn new(runs: Vec<Browse>) -> Result<Self, Failure> {
        let digest = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             style-src 'sha256-{}'; script-src 'sha256-{}'",
            digest(STYLE),
            digest(SCRIPT)
        );
        let page = PAGE.replace("/*style*/", STYLE).replace("/*script*/", SCRIPT);
        let pages: Vec<_> = runs.iter().map(|run| &run.page).collect();
        let summary = serde_json::to_vec(&pages).map_err(|error| Failure::new(Kind::Incomplete, error))?;
        Ok(Self { runs, page, policy, summary })
    }

    /// `/`, `/runs.json`, `/run/RUN/report.html`, `/run/RUN/clean/SAMPLE`, `/run/RUN/cell/CELL/SAMPLE`. Names of files never
    /// come from a path: its parts are numbers.
    fn answer(&self, path: &str) -> Answer {
        let html = "text/html; charset=utf-8";
        let missing = || Answer::error(404, "there is no such page");
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts[..] {
            [""] => Answer { policy: self.policy.clone().into(), ..Answer::new(html, self.page.clone().into_bytes()) },
            ["runs.json"] => Answer::new("application/json", self.summary.clone()),
            ["run", run, ref rest @ ..] => {
                let Some(run) = number(run).and_then(|run| self.runs.get(run as usize)) else { return missing() };
                match *rest {
                    // The report has a policy of its own in the document.
                    ["report.html"] => match run.report() {
                        Ok(report) => Answer { policy: "frame-ancestors 'none'".into(), ..Answer::new(html, report) },
                        Err(error) => failed(&error),
                    },
                    ["clean", sample] => number(sample).map_or_else(missing, |sample| values(run.clean(sample))),
                    ["cell", cell, sample] => match (number(cell), number(sample)) {
                        (Some(cell), Some(sample)) => values(run.perturbed(cell as usize, sample)),
                        _ => missing(),
                    },
                    _ => missing(),
                }
            }
            _ => missing(),
        }
    }
}

/// A number of digits only.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn values(found: Result<Option<Vec<u8>>, AuditError>) -> Answer {
    match found {
        Ok(Some(values)) => Answer::new("application/octet-stream", values),
        Ok(None) => Answer::error(404, "this sample is not kept"),
        Err(error) => failed(&error),
    }
}

fn failed(error: &AuditError) -> Answer {
    Answer::error(500, &error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_told_apart() {
        let of = |folders: &[&str]| names(&folders.iter().map(|folder| (*folder).into()).collect::<Vec<_>>());
        assert_eq!(of(&["/a/plain", "/a/hardened/"]), ["plain", "hardened"]);
        assert_eq!(of(&["/a/results", "/b/results"]), ["a/results", "b/results"]);
        assert_eq!(of(&["/a/results", "/a/results"]), ["results 0", "results 1"]);
    }

    #[test]
    fn what_is_not_a_page_is_not_found() {
        let viewer = Viewer::new(Vec::new()).ok().unwrap();
        assert_eq!(viewer.answer("/").status, 200);
        assert_eq!(*viewer.answer("/runs.json").body, *b"[]");
        for path in [
            "",
            "x",
            "//",
            "/..",
            "/../../etc/passwd",
            "/run/0/report.html",
            "/run/0/../../x",
            "/run/-1/report.html",
            "/run/+0/x",
            "/run/%2e%2e/report.html",
            "/run//clean/0",
            "/runs.json?x",
            "/run/99999999999999999999999/clean/1",
        ] {
            assert_eq!(viewer.answer(path).status, 404, "{path}");
        }
    }

    #[test]
    fn the_policy_knows_the_script_and_style_of_the_page() {
        let viewer = Viewer::new(Vec::new()).ok().unwrap();
        let between = |open: &str, close: &str| {
            let (_, rest) = viewer.page.split_once(open).unwrap();
            rest.split_once(close).unwrap().0.to_owned()
        };
        for text in [between("<style>", "</style>"), between("<script>", "</script>")] {
            let digest = STANDARD.encode(Sha256::digest(&text));
            assert!(text.len() > 1000 && viewer.policy.contains(&format!("'sha256-{digest}'")));
        }
        // The name of SVG is no address.
        let page = viewer.page.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "//cdn", "@import", "<link rel=\"stylesheet\"", "url(", "innerHTML", "eval("]
        {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
