//! Files are parsed in a child process, which a hostile file can break without harm.
//!
//! The child is this program again. It is asked for one file after another by lines of JSON on its standard input and answers
//! on its standard output. For each file it limits its own memory to 512 MiB, and 8 bytes more for each byte of the file above
//! 32 MiB, and its processor time to 2 s (rounded up to the next whole second by the system) and one more for each 16 MiB of
//! the file. The parent waits fifteen times as long, since a machine may be busy. A child that died is replaced for the next file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use std::{env, io, process, thread};

use serde::{Deserialize, Serialize};

use super::image::{self, Image};
use crate::DataError;

/// Says to a program that it is to read files.
const VARIABLE: &str = "NOCEBO_DICOM_READER";
/// Before each answer, so that nothing else on the standard output is taken for one.
const MARK: [u8; 16] = *b"nocebo answer\r\n\0";
/// Greatest size of a file.
const FILE_BYTES: u64 = 1 << 30;
/// Greatest size of the description in an answer.
const DESCRIPTION_BYTES: u64 = 1 << 20;

/// Arguments with which this program becomes a child.
static ARGUMENTS: OnceLock<&[&str]> = OnceLock::new();

/// Makes this program able to read DICOM files; to be called first in `main`, before any thread is started.
///
/// In the program that a user starts it returns at once. When a file is to be read, the program is started again with these
/// arguments and a mark in its environment; in that child the function reads files until none is asked for, and ends the
/// process.
pub fn isolate(arguments: &'static [&'static str]) {
    if env::var_os(VARIABLE).is_some() {
        let served = serve(io::stdin().lock(), BufWriter::new(io::stdout().lock()));
        process::exit(i32::from(served.is_err()));
    }
    ARGUMENTS.get_or_init(|| arguments);
}

/// What the child is asked for.
#[derive(Deserialize, Serialize)]
struct Request {
    path: String,
    name: String,
    limit: u64,
    with_pixels: bool,
}

/// An error on its way from the child.
#[derive(Deserialize, Serialize)]
enum Fault {
    Read(Option<i32>),
    Format { what: String, expected: String, got: String },
    Refused { what: String, advice: String },
    TooLarge { what: String, limit: u64, got: u64 },
    NonFinite { sample: usize, element: usize, value: String },
}

impl Fault {
    fn of(error: DataError) -> Self {
        match error {
            DataError::Read { source, .. } => Self::Read(source.raw_os_error()),
            DataError::Format { what, expected, got, .. } => Self::Format { what, expected, got },
            DataError::TooLarge { what, limit, got, .. } => Self::TooLarge { what, limit, got },
            DataError::NonFinite { sample, element, value, .. } => {
                Self::NonFinite { sample, element, value: value.to_string() }
            }
            DataError::Refused { what, advice, .. } => Self::Refused { what, advice },
            other => Self::Refused { what: other.to_string(), advice: "check the file".to_owned() },
        }
    }

    fn into_error(self, file: &str) -> DataError {
        let file = file.to_owned();
        match self {
            Self::Read(code) => {
                let source =
                    code.map_or_else(|| io::Error::other("the file cannot be read"), io::Error::from_raw_os_error);
                DataError::Read { file, source }
            }
            Self::Format { what, expected, got } => DataError::Format { file, what, expected, got },
            Self::Refused { what, advice } => DataError::Refused { file, what, advice },
            Self::TooLarge { what, limit, got } => DataError::TooLarge { file, what, limit, got },
            Self::NonFinite { sample, element, value } => {
                DataError::NonFinite { file, sample, element, value: value.parse().unwrap_or(f64::NAN) }
            }
        }
    }
}

/// Memory in bytes and processor time in seconds for a file of so many bytes.
pub(super) fn allowance(length: u64) -> (u64, u64) {
    ((512 << 20) + 8 * length.saturating_sub(32 << 20), 2 + length / (16 << 20))
}

/// Answers requests until there are no more.
fn serve(requests: impl io::BufRead, mut answers: impl Write) -> io::Result<()> {
    for line in requests.lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let (description, values) = match read_here(&request) {
            Ok(mut image) => {
                let values = std::mem::take(&mut image.values);
                (serde_json::to_vec(&Ok::<_, Fault>(image))?, values)
            }
            Err(error) => (serde_json::to_vec(&Err::<Image, _>(Fault::of(error)))?, Vec::new()),
        };
        answers.write_all(&MARK)?;
        answers.write_all(&(description.len() as u64).to_le_bytes())?;
        answers.write_all(&description)?;
        answers.write_all(&(values.len() as u64).to_le_bytes())?;
        for value in values {
            answers.write_all(&value.to_le_bytes())?;
        }
        answers.flush()?;
    }
    Ok(())
}

fn read_here(request: &Request) -> Result<Image, DataError> {
    let reading = |source| DataError::Read { file: request.name.clone(), source };
    let file = File::open(&request.path).map_err(reading)?;
    let length = file.metadata().map_err(reading)?.len();
    let (memory, seconds) = allowance(length);
    limits::set(memory, seconds).map_err(reading)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(reading)?;
    image::decode(&request.name, &bytes, request.limit, request.with_pixels)
}

#[cfg(unix)]
pub(super) mod limits {
    use std::io;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::time::{ClockId, clock_gettime};

    /// Limits the memory of this process, and the processor time that it may use from now on; no image of its memory is left
    /// behind when it dies.
    pub(in super::super) fn set(memory: u64, seconds: u64) -> io::Result<()> {
        let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec as u64;
        for (resource, limit) in [(Resource::As, memory), (Resource::Cpu, used + seconds), (Resource::Core, 0)] {
            let maximum = getrlimit(resource).maximum;
            let limit = maximum.map_or(limit, |maximum| limit.min(maximum));
            setrlimit(resource, Rlimit { current: Some(limit), maximum })?;
        }
        Ok(())
    }
}

#[cfg(not(unix))]
pub(super) mod limits {
    pub(in super::super) fn set(_: u64, _: u64) -> std::io::Result<()> {
        Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "no limits for a child process on this system"))
    }
}

/// Reads files, in a child process that is started when it is needed.
#[derive(Default)]
pub(super) struct Reader {
    running: Option<Running>,
}

struct Running {
    child: Child,
    requests: ChildStdin,
    answers: Receiver<io::Result<Answer>>,
}

type Answer = (Result<Image, Fault>, Vec<f32>);

impl Reader {
    /// Reads the image at `path`, called `name` in messages, of at most `limit` values; its header only where pixels are not
    /// wanted.
    pub(super) fn read(&mut self, path: &Path, name: &str, limit: u64, with_pixels: bool) -> Result<Image, DataError> {
        let metadata = path.metadata().map_err(DataError::reading(name))?;
        if !metadata.is_file() {
            return Err(DataError::format(name, "kind of file", "a regular file", "something else"));
        }
        DataError::check_limit(name, "bytes of the file", FILE_BYTES, metadata.len())?;
        let Some(text) = path.to_str() else {
            return Err(DataError::format(name, "path", "UTF-8", "other bytes; rename the file or folder"));
        };
        let request = Request { path: text.to_owned(), name: name.to_owned(), limit, with_pixels };
        let line =
            serde_json::to_string(&request).map_err(|error| DataError::refused(name, error, "rename the file"))?;
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(name)?),
        };
        let (memory, seconds) = allowance(metadata.len());
        // A child that is gone answers below.
        let _ = writeln!(running.requests, "{line}");
        match running.answers.recv_timeout(Duration::from_secs(PATIENCE * seconds)) {
            Ok(Ok((Ok(mut image), values))) => {
                image.values = values;
                Ok(image)
            }
            Ok(Ok((Err(fault), _))) => Err(fault.into_error(name)),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                let status = self.stop();
                Err(died(name, status, memory, seconds))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.stop();
                Err(too_long(name, PATIENCE * seconds))
            }
        }
    }

    fn stop(&mut self) -> Option<ExitStatus> {
        let mut running = self.running.take()?;
        // It may have ended already.
        let ended = running.child.try_wait().ok().flatten();
        let _ = running.child.kill();
        let status = running.child.wait().ok();
        ended.or(status)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn start(name: &str) -> Result<Self, DataError> {
        let Some(arguments) = ARGUMENTS.get() else {
            let advice =
                "call nocebo_data::formats::dicom::isolate first in `main`: files are parsed in a child process";
            return Err(DataError::refused(name, "a DICOM file in a program that is not prepared for it", advice));
        };
        let program = env::current_exe().map_err(DataError::reading(name))?;
        let mut child = Command::new(program)
            .args(arguments.iter().map(OsStr::new))
            .env(VARIABLE, "1")
            // A child that gives up does so at once.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(DataError::reading(name))?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(requests), Some(output)) = pipes else {
            return Err(DataError::refused(name, "a child process without pipes", "try again"));
        };
        let (sender, answers) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let answer = next_answer(&mut output);
                let is_last = answer.is_err();
                if sender.send(answer).is_err() || is_last {
                    break;
                }
            }
        });
        Ok(Self { child, requests, answers })
    }
}

fn next_answer(output: &mut impl io::BufRead) -> io::Result<Answer> {
    // Whatever stands before the mark is no answer, such as the first lines of a test program.
    let mut last = Vec::new();
    while !last.ends_with(&MARK) {
        last.clear();
        if output.by_ref().take(1 << 16).read_until(MARK[15], &mut last)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let too_long = || io::Error::other("an answer that is too long");
    let length = Some(read_number(output)?).filter(|length| *length <= DESCRIPTION_BYTES).ok_or_else(too_long)?;
    let mut description = vec![0; length as usize];
    output.read_exact(&mut description)?;
    let description: Result<Image, Fault> = serde_json::from_slice(&description)?;
    let expected = description
        .as_ref()
        .map_or(0, |image| image.shape.iter().fold(1, |all: u64, &side| all.saturating_mul(side as u64)));
    let count = read_number(output)?;
    if count != 0 && count != expected {
        return Err(too_long());
    }
    let mut values = Vec::with_capacity(count as usize);
    let mut four = [0; 4];
    for _ in 0..count {
        output.read_exact(&mut four)?;
        values.push(f32::from_le_bytes(four));
    }
    Ok((description, values))
}

fn read_number(output: &mut impl Read) -> io::Result<u64> {
    let mut eight = [0; 8];
    output.read_exact(&mut eight)?;
    Ok(u64::from_le_bytes(eight))
}

/// How much longer the parent waits than the child may compute.
const PATIENCE: u64 = 15;

const ADVICE: &str = "leave it out, or convert it with a tool of the device that made it";

fn too_long(name: &str, seconds: u64) -> DataError {
    DataError::refused(name, format!("a file that is not read within {seconds} s"), ADVICE)
}

/// Processor time is used up (SIGXCPU on Linux and macOS).
const TIME: i32 = 24;
/// A program gave up (SIGABRT): memory that it was not given.
const ABORT: i32 = 6;

/// Why a child that is gone did not answer.
pub(super) fn died(name: &str, status: Option<ExitStatus>, memory: u64, seconds: u64) -> DataError {
    #[cfg(unix)]
    let signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    #[cfg(not(unix))]
    let signal: Option<i32> = status.and(None);
    match signal {
        Some(TIME) => {
            DataError::refused(name, format!("a file that takes more than {seconds} s of processor time"), ADVICE)
        }
        Some(ABORT) => {
            DataError::refused(name, format!("a file that takes more than {} MiB of memory", memory >> 20), ADVICE)
        }
        _ => DataError::refused(name, "a file that breaks its reader", ADVICE),
    }
}
