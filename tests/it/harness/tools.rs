//! Independent programs that judge what Tidings sends and shows: scripts of `tests/tools/` over libraries of others, and
//! programs of Debian. `tests/run` installs them.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::said;

/// Names the folder that holds `venv` and `node_modules`.
const FOLDER: &str = "TIDINGS_TEST_TOOLS";

/// The folder of the installed tools.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os(FOLDER).unwrap_or_else(|| panic!("{FOLDER} is not set: run tests/run")))
}

/// A Python script of `tests/tools/`, with the pinned packages.
pub(crate) fn python(script: &str) -> Command {
    let mut command = Command::new(folder().join("venv/bin/python"));
    command.arg("-B").arg(scripts().join(script));
    command
}

/// A Node script of `tests/tools/` (CommonJS: `.cjs`), with the pinned packages.
pub(crate) fn node(script: &str) -> Command {
    let mut command = Command::new(folder().join("bin/node"));
    command.arg(scripts().join(script)).env("NODE_PATH", folder().join("node_modules"));
    command
}

/// Runs a tool with this standard input; fails the test when it does not end with 0.
#[track_caller]
pub(crate) fn run(mut command: Command, input: impl AsRef<[u8]>) -> Output {
    let output = feed(&mut command, input.as_ref());
    assert!(output.status.success(), "{:?}: {}", command.get_program(), said(&output));
    output
}

/// As [`run`], and reads what it wrote as JSON.
#[track_caller]
pub(crate) fn run_json(command: Command, input: impl AsRef<[u8]>) -> Value {
    let output = run(command, input);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
}

/// Runs a tool with this standard input to its end, whatever that is.
pub(crate) fn feed(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_program().to_owned();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", OsStr::display(&name)));
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A tool may stop reading early; what it says of that is looked at, not the broken pipe.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}
