//! This machine: cores, CPU time and memory of processes, free ports, programs to start and to end.
//!
//! Linux only: it reads `/proc`.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Outcome;

/// How often something that is waited for is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// How long a process may take to end once asked.
const FAREWELL: Duration = Duration::from_secs(60);

/// Puts this process, and so all that it starts, on cores 0 and 1.
pub(crate) fn share_two_cores() -> Outcome<()> {
    let mut cores = CpuSet::new();
    cores.set(0);
    cores.set(1);
    sched_setaffinity(None, &cores).map_err(|error| format!("cannot stay on cores 0 and 1: {error}"))?;
    Ok(())
}

/// A port of the loopback interface that nobody listens on now.
pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A command that runs on this core alone.
pub(crate) fn on_core(core: u8, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string(), program]);
    command
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{name}: {error}; benches/README.md says what to install"))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("{name} ended with {}: {}", done.status, said.trim()).into());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Waits until this holds; fails with these words when it takes longer.
#[expect(clippy::disallowed_methods, reason = "it is what waits for a condition")]
pub(crate) fn wait_until(
    patience: Duration,
    too_long: &str,
    mut holds: impl FnMut() -> Outcome<bool>,
) -> Outcome<()> {
    let begun = Instant::now();
    while !holds()? {
        if begun.elapsed() > patience {
            return Err(too_long.into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// CPU time, user and system.
#[derive(Clone, Copy, Debug)]
struct Used {
    parent: u32,
    own: u64,
    reaped: u64,
}

fn used(pid: u32) -> Option<Used> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the process may hold anything, but ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Used {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        reaped: ticks(13)? + ticks(14)?,
    })
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Seconds of CPU that a process and all its threads have used, to a hundredth.
pub(crate) fn cpu_of(pid: u32) -> f64 {
    seconds(used(pid).map_or(0, |used| used.own))
}

/// The same of a process, of its children that live and of those that ended and were waited for.
pub(crate) fn cpu_of_family(pid: u32) -> f64 {
    let Ok(folder) = fs::read_dir("/proc") else { return 0.0 };
    let pids = folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let all: HashMap<u32, Used> = pids.filter_map(|pid| Some((pid, used(pid)?))).collect();
    let family = all.iter().filter(|(of, used)| **of == pid || used.parent == pid);
    seconds(family.map(|(_, used)| used.own + used.reaped).sum())
}

/// The most memory that a process ever held, in MB, as Linux tells while it lives.
pub(crate) fn peak_mb(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}

/// A process that ends with this value, whichever way the harness ends.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    /// What asks it to end in order.
    signal: Signal,
}

impl Running {
    /// Starts it; `signal` asks it to end.
    pub(crate) fn start(name: &'static str, command: &mut Command, signal: Signal) -> Outcome<Self> {
        let started = command.stdin(Stdio::null()).spawn();
        let child =
            started.map_err(|error| format!("{name}: {error}; benches/README.md says what to install"))?;
        Ok(Self { name, child, signal })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when it has ended already.
    pub(crate) fn alive(&mut self) -> Outcome<()> {
        match self.child.try_wait()? {
            Some(status) => Err(format!("{} ended with {status}", self.name).into()),
            None => Ok(()),
        }
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(Pid::from_child(&self.child), self.signal)?;
        let ends = format!("{} does not end", self.name);
        wait_until(FAREWELL, &ends, || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
