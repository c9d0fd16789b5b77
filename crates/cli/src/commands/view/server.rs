//! A server of pages to this machine: GET only, one request a connection, bounded in size, time and number.
//!
//! It listens on 127.0.0.1 and answers only to requests that name it so: a page from elsewhere whose name was made to point
//! here (DNS rebinding) says its own name in `Host` and is refused. No answer may be read by pages of another origin.

use std::borrow::Cow;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a request's head.
const HEAD: usize = 8 * 1024;
/// Headers of a request.
const HEADERS: usize = 64;
/// Time for a request to arrive whole.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Time for a piece of an answer to leave.
const DEPARTURE: Duration = Duration::from_secs(20);
/// Connections at a time.
const CONNECTIONS: usize = 16;

/// What a path is answered with.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    /// Content security policy: what the document may do.
    pub(super) policy: Cow<'static, str>,
    pub(super) body: Cow<'static, [u8]>,
}

impl Answer {
    pub(super) fn new(kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Self { status: 200, kind, policy: "default-src 'none'".into(), body: body.into() }
    }

    pub(super) fn error(status: u16, message: &str) -> Self {
        Self { status, ..Self::new("text/plain; charset=utf-8", format!("{status} {message}\n").into_bytes()) }
    }
}

/// Answers requests until the process ends.
pub(super) fn serve(listener: &TcpListener, answer: &(dyn Fn(&str) -> Answer + Sync)) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    let open = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            // Out of descriptors, or gone already: the next may work.
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                open.fetch_sub(1, Ordering::Relaxed);
                let _ = send(stream, &Answer::error(503, "too many connections"));
                continue;
            }
            let open = &open;
            scope.spawn(move || {
                // Whoever hangs up gets no answer.
                let _ = converse(stream, port, answer);
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(())
}

fn converse(mut stream: TcpStream, port: u16, answer: &(dyn Fn(&str) -> Answer + Sync)) -> io::Result<()> {
    let deadline = Instant::now() + ARRIVAL;
    let mut head = Vec::new();
    let reply = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Answer::error(408, "the request took too long");
        }
        stream.set_read_timeout(Some(left))?;
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => head.extend_from_slice(&piece[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        }
        if let Some(reply) = reply(&head, port, answer) {
            break reply;
        }
        if head.len() > HEAD {
            break Answer::error(431, "the request is too long");
        }
    };
    send(stream, &reply)
}

/// The answer to a request; none while it has not arrived whole.
fn reply(head: &[u8], port: u16, answer: &(dyn Fn(&str) -> Answer + Sync)) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Answer::error(431, "too many headers")),
        Err(_) => return Some(Answer::error(400, "not a request")),
    }
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let ours = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let named = match (hosts.next(), hosts.next()) {
        (Some(host), None) => ours.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(host.value)),
        _ => false,
    };
    Some(match (named, request.method) {
        (false, _) => Answer::error(403, "this server answers to 127.0.0.1 only"),
        (true, Some("GET")) => answer(request.path.unwrap_or_default()),
        (true, _) => Answer::error(405, "GET only"),
    })
}

fn send(mut stream: TcpStream, answer: &Answer) -> io::Result<()> {
    let reason = match answer.status {
        200 => "OK",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Bad Request",
    };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nContent-Security-Policy: {}\r\n\
         X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\nReferrer-Policy: no-referrer\r\n\
         X-Frame-Options: DENY\r\nCache-Control: no-store\r\nAllow: GET\r\nConnection: close\r\n\r\n",
        answer.status,
        answer.kind,
        answer.body.len(),
        answer.policy,
    );
    stream.set_write_timeout(Some(DEPARTURE))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)?;
    stream.shutdown(Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that echoes paths; it lives as long as the test program.
    fn port() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || serve(&listener, &|path| Answer::new("text/plain", path.as_bytes().to_vec())));
        port
    }

    fn ask(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text);
        String::from_utf8(text).unwrap()
    }

    fn status(answer: &str) -> &str {
        answer.get(9..12).unwrap_or(answer)
    }

    #[test]
    fn only_get_and_only_our_own_name_are_answered() {
        let port = port();
        let found = ask(port, &format!("GET /run/0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"));
        assert!(status(&found) == "200" && found.ends_with("\r\n\r\n/run/0"), "{found}");
        for line in ["Content-Security-Policy: default-src 'none'", "nosniff", "no-store", "Policy: same-origin"] {
            assert!(found.contains(line), "{line}: {found}");
        }
        let local = ask(port, &format!("GET / HTTP/1.1\r\nHost: LOCALHOST:{port}\r\n\r\n"));
        assert_eq!(status(&local), "200");
        let ours = format!("Host: 127.0.0.1:{port}\r\n");
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), "403"),
            (format!("GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"), "403"),
            (format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", port ^ 1), "403"),
            (format!("GET / HTTP/1.1\r\n{ours}{ours}\r\n"), "403"),
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), "403"),
            (format!("POST / HTTP/1.1\r\n{ours}\r\n"), "405"),
            (format!("OPTIONS * HTTP/1.1\r\n{ours}\r\n"), "405"),
            ("hello\u{0}\r\n\r\n".to_owned(), "400"),
        ] {
            let found = ask(port, &request);
            assert_eq!(status(&found), expected, "{request}: {found}");
        }
    }

    #[test]
    fn a_request_that_is_too_long_or_never_ends_is_cut_off() {
        let port = port();
        let long = ask(port, &format!("GET /{} HTTP/1.1\r\n", "a".repeat(2 * HEAD)));
        assert!(status(&long) == "431" || long.is_empty(), "{long}");
        let many = "X: y\r\n".repeat(HEADERS + 1);
        assert_eq!(status(&ask(port, &format!("GET / HTTP/1.1\r\n{many}\r\n"))), "431");
        let start = Instant::now();
        assert_eq!(status(&ask(port, "GET / HTTP/1.1\r\nHost: ")), "408");
        assert!(start.elapsed() < ARRIVAL + Duration::from_secs(2));
    }

    #[test]
    fn more_connections_than_allowed_are_sent_away_and_room_comes_back() {
        let port = port();
        let idle: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        // Those before have to be accepted first, in order.
        assert_eq!(status(&ask(port, "")), "503");
        drop(idle);
        let start = Instant::now();
        while status(&ask(port, &request)) != "200" {
            assert!(start.elapsed() < Duration::from_secs(3));
        }
    }
}
