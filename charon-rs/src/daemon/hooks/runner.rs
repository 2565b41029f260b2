//! Runs programs without anybody waiting for them: those about one child one after the other, those about several side by
//! side, each for a limited time.

use std::collections::{BTreeSet, VecDeque};
use std::process::Stdio;
use std::time::Duration;

use ike_proto::io::{ChildSaReport, IkeSaId, IkeSaReport};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::environment::Variable;

/// Where a program belongs: those of one place run one after the other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    connection: String,
    /// Connections may have many peers.
    ike_sa: Option<IkeSaId>,
    child: Option<String>,
}

impl Order {
    /// The place of a child, which stays over rekeyings, or of an IKE SA.
    pub(super) fn of(sa: &IkeSaReport, child: Option<&ChildSaReport>) -> Self {
        let ike_sa = child.is_none().then_some(sa.id);
        // A child that goes over to the successor of its IKE SA is the same child.
        let child = child.map(|child| format!("{} {}", child.name, child.policy.0));
        Self { connection: sa.connection.clone(), ike_sa, child }
    }
}

/// A program to run.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) order: Order,
    /// The program and its arguments; never empty.
    pub(super) program: Vec<String>,
    /// Besides `PATH`.
    pub(super) environment: Vec<Variable>,
    /// What it reads from its standard input.
    pub(super) input: Vec<u8>,
}

impl Job {
    /// The connection that it is for and the program, for the log.
    fn names(&self) -> (&str, &str) {
        (&self.order.connection, self.program.first().map_or("", String::as_str))
    }
}

/// The way to the programs.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Runner {
    jobs: mpsc::Sender<Job>,
}

/// Ends when the last program has, once every [`Runner`] is gone.
pub(in crate::daemon) type HookEnd = JoinHandle<()>;

/// Programs that wait at most. Beyond, the event is lost for them, and the log says so.
const QUEUE: usize = 4096;

/// Programs that run at once at most.
const AT_ONCE: usize = 16;

/// Lines of output that are logged for each program.
const LINES: usize = 100;

/// Octets of a line that are logged.
const LINE: usize = 400;

impl Runner {
    /// Starts to run programs, each for `limit` at most.
    pub(in crate::daemon) fn start(limit: Duration) -> (Self, HookEnd) {
        let (runner, jobs) = Self::into_channel();
        (runner, tokio::spawn(dispatch(jobs, limit)))
    }

    /// A runner whose programs somebody else takes.
    pub(super) fn into_channel() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, taken) = mpsc::channel(QUEUE);
        (Self { jobs }, taken)
    }

    /// Has a program run when it is its turn.
    pub(super) fn run(&self, job: Job) {
        if let Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) =
            self.jobs.try_send(job)
        {
            let (connection, program) = job.names();
            tracing::error!(connection, program, "too many hooks are waiting: this one is not run");
        }
    }
}

async fn dispatch(mut jobs: mpsc::Receiver<Job>, limit: Duration) {
    let mut waiting = VecDeque::new();
    let mut busy = BTreeSet::new();
    let mut running = JoinSet::new();
    loop {
        while let Some(job) = next(&mut waiting, &busy, running.len()) {
            busy.insert(job.order.clone());
            running.spawn(async move {
                run(&job, limit).await;
                job.order
            });
        }
        tokio::select! {
            job = jobs.recv(), if waiting.len() < QUEUE => match job {
                Some(job) => waiting.push_back(job),
                None if running.is_empty() => return,
                None => finish(&mut running, &mut busy).await,
            },
            () = finish(&mut running, &mut busy), if !running.is_empty() => {}
        }
    }
}

/// The first one whose turn it is.
fn next(waiting: &mut VecDeque<Job>, busy: &BTreeSet<Order>, running: usize) -> Option<Job> {
    if running >= AT_ONCE {
        return None;
    }
    let mut before = BTreeSet::new();
    let at = waiting.iter().position(|job| !busy.contains(&job.order) && before.insert(&job.order))?;
    waiting.remove(at)
}

/// Waits until one has ended.
async fn finish(running: &mut JoinSet<Order>, busy: &mut BTreeSet<Order>) {
    match running.join_next().await {
        Some(Ok(order)) => drop(busy.remove(&order)),
        Some(Err(error)) => tracing::error!(%error, "a hook was lost"),
        None => {}
    }
}

/// Runs one, and says in the log how that went.
async fn run(job: &Job, limit: Duration) {
    let (connection, program) = job.names();
    let Some((_, arguments)) = job.program.split_first() else { return };
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .envs(job.environment.iter().map(|(name, value)| (name.as_ref(), value.as_str())))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            tracing::error!(connection, program, %error, "a hook cannot be run");
            return;
        }
    };
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    match tokio::time::timeout(limit, attend(&mut child, job)).await {
        Ok(Ok(status)) if status.success() => tracing::debug!(connection, program, "a hook has run"),
        Ok(Ok(status)) => tracing::warn!(connection, program, %status, "a hook has failed"),
        Ok(Err(error)) => tracing::error!(connection, program, %error, "a hook cannot be waited for"),
        Err(_) => {
            tracing::error!(connection, program, ?limit, "a hook takes too long: ending it and what it has started");
            if let Some(group) = group
                && let Err(error) = kill_process_group(group, Signal::KILL)
            {
                tracing::warn!(connection, program, %error, "it cannot be ended");
            }
            if let Err(error) = child.wait().await {
                tracing::warn!(connection, program, %error, "it cannot be waited for");
            }
        }
    }
}

/// Feeds a program, logs what it says, and waits for its end. What it leaves running in the background with its output open
/// does not hold us up.
async fn attend(child: &mut Child, job: &Job) -> std::io::Result<std::process::ExitStatus> {
    let (connection, program) = job.names();
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin
            && let Err(error) = stdin.write_all(&job.input).await
        {
            tracing::debug!(connection, program, %error, "a hook does not read its input");
        }
    };
    let listen = async { tokio::join!(log(stdout, job), log(stderr, job)) };
    let ended = async {
        let ((), status) = tokio::join!(feed, child.wait());
        status
    };
    tokio::pin!(listen, ended);
    tokio::select! {
        status = &mut ended => {
            // What it said last is there already.
            if tokio::time::timeout(Duration::from_millis(100), listen).await.is_err() {
                tracing::debug!(connection, program, "a hook has left something running");
            }
            status
        }
        _ = &mut listen => ended.await,
    }
}

async fn log(output: Option<impl AsyncRead + Unpin>, job: &Job) {
    let (connection, program) = job.names();
    let Some(output) = output else { return };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    let mut lines = 0;
    loop {
        line.clear();
        match read_line(&mut output, &mut line).await {
            Ok(true) if lines < LINES => {
                lines += 1;
                tracing::info!(connection, program, "{}", String::from_utf8_lossy(&line).trim_end());
            }
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Reads up to the end of a line and keeps so much of it as is logged; `false` at the end.
async fn read_line(output: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut is_something = false;
    loop {
        let available = output.fill_buf().await?;
        if available.is_empty() {
            return Ok(is_something);
        }
        is_something = true;
        let end = available.iter().position(|octet| *octet == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        let room = LINE.saturating_sub(line.len());
        line.extend(available.iter().take(taken.min(room)));
        output.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// Where programs look for others; our own may be anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn job(child: &str, script: &str) -> Job {
        Job {
            order: Order { connection: "net".to_owned(), ike_sa: None, child: Some(child.to_owned()) },
            program: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: vec![("PLUTO_VERB".into(), "up-client".to_owned())],
            input: b"{}\n".to_vec(),
        }
    }

    async fn run_all(limit: Duration, jobs: impl IntoIterator<Item = Job>) {
        let (runner, end) = Runner::start(limit);
        jobs.into_iter().for_each(|job| runner.run(job));
        drop(runner);
        end.await.unwrap();
    }

    #[tokio::test]
    async fn programs_of_one_child_run_in_order_with_environment_and_input() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let path = file.display();
        // The second would be first if they ran side by side.
        let first = format!("read line; sleep 0.2; echo $PLUTO_VERB $line $HOME >>{path}");
        run_all(PATIENCE, [job("a", &first), job("a", &format!("echo second >>{path}"))]).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "up-client {}\nsecond\n");
    }

    #[tokio::test]
    async fn those_of_different_children_run_side_by_side() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let path = fifo.display();
        // Each needs the other one to go on.
        let jobs =
            [job("a", &format!("mkfifo {path}; echo >{path}")), job("b", &format!("until read x <{path}; do :; done"))];
        run_all(PATIENCE, jobs).await;
        assert!(fifo.exists());
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_ended_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{}; wait", file.display());
        // On a busy machine it may not have begun when its time is over; then it gets more.
        let mut pid = String::new();
        for limit in [1, 4, 16, 64].map(Duration::from_secs) {
            run_all(limit, [job("a", &script)]).await;
            pid = std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
            if !pid.is_empty() {
                break;
            }
        }
        assert!(!pid.is_empty(), "it never began");
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "{state}");
    }

    #[tokio::test]
    async fn what_cannot_be_run_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("said");
        let missing = Job { program: vec!["/nowhere".to_owned()], ..job("a", "") };
        run_all(PATIENCE, [missing, job("a", "exit 3"), job("a", &format!("touch {}", file.display()))]).await;
        assert!(file.exists());
    }

    #[tokio::test]
    async fn what_is_left_in_the_background_with_its_output_open_holds_nobody_up() {
        run_all(PATIENCE, [job("a", "sleep 3 &")]).await;
    }
}
