//! What the demo shows, step by step.

mod named;
mod published;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::scratch::{self, Background, Scratch};
use super::steps::{Steps, View};
use crate::process;

/// Where the scratch host keeps what the programs of the demo need and write.
const PLACE: &str = "/run/scratch";
/// The page that the web server serves.
const PAGE: &str = "hello from www\n";
/// How long a program may take to start on a slow machine.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long the daemon may take to mend what others broke; on an idle machine it takes milliseconds.
const MEND_LIMIT: Duration = Duration::from_secs(10);

/// The scratch host with the daemon at work on it.
#[derive(Debug)]
pub(crate) struct Scenario<'a> {
    scratch: &'a Scratch,
    steps: &'a mut Steps,
    /// Until the last steps.
    daemon: Option<Background>,
    /// The host as it is before the daemon comes.
    before: BTreeSet<String>,
}

impl<'a> Scenario<'a> {
    /// Shows everything; the checks are counted in `steps`. An error means that the demo itself cannot go on.
    pub(crate) fn play(scratch: &'a Scratch, steps: &'a mut Steps) -> Result<()> {
        let _mirror = lay_out(scratch)?;
        let before = host_state(scratch)?;
        let mut scenario = Self {
            scratch,
            steps,
            daemon: None,
            before,
        };
        let shown = scenario.show();
        if shown.is_err() {
            let log = fs::read_to_string(format!("{PLACE}/daemon.log")).unwrap_or_default();
            eprintln!("\nthe daemon's log:\n{log}");
        }
        shown
    }

    fn show(&mut self) -> Result<()> {
        self.host()?;
        self.networks()?;
        let dropped = dropped_by_the_machine()?;
        self.sandboxes()?;
        self.reach_each_other()?;
        self.named()?;
        self.reach_the_outside()?;
        self.isolation()?;
        self.published()?;
        self.filtered()?;
        self.wide()?;
        self.linked()?;
        self.pictures()?;
        self.crash(dropped)?;
        self.stop_and_start()?;
        self.mending()?;
        self.removal()?;
        self.nothing_left()
    }

    fn host(&mut self) -> Result<()> {
        self.steps
            .step("A host with one uplink, and the daemon on it");
        let brief = ["-brief", "address", "show", "eth0"];
        self.steps
            .run(View::All, self.scratch.host("ip").args(brief))?;
        self.start_daemon()?;
        let version = self.tombolo("version");
        self.must("the daemon answers", View::All, version)?;
        Ok(())
    }

    fn networks(&mut self) -> Result<()> {
        self.steps.step("Two networks, the first with IPv6, too");
        let create = "network create --subnet 10.80.0.0/24 --ipv6 --subnet fd80::/64 web";
        let plan = self.tombolo(&format!("plan {create}"));
        self.must(
            "a plan says what a command would do to the kernel",
            View::All,
            plan,
        )?;
        let create = self.tombolo(create);
        self.must("network web is made", View::Nothing, create)?;
        let create = self.tombolo("network create --subnet 10.90.0.0/24 back");
        self.must("network back is made", View::Nothing, create)?;
        Ok(())
    }

    fn sandboxes(&mut self) -> Result<()> {
        self.steps
            .step("Four sandboxes: programs of this host, each with a network of its own");
        for line in [
            "--name www --network web -w /run/scratch/site python3 -m http.server --bind :: 80",
            "--name echo --network back python3 /run/scratch/udp.py serve 7",
            "--name app --network web --network back sleep infinity",
            "--name visitor --network web ping -i 0.05 10.80.0.2",
        ] {
            let run = self.tombolo(&format!("run -d {line}"));
            self.steps.typed(&process::render(&run));
            let mut run = run;
            process::read(&mut run)?;
        }
        self.wait_for_server("www", "-Htln", 80)?;
        self.wait_for_server("echo", "-Huln", 7)?;
        let ps = self.tombolo("ps");
        let shown = self.must("all four run", View::All, ps)?;
        let running = shown.lines().filter(|line| line.contains("Up ")).count();
        self.steps
            .check("each has an address on each of its networks", {
                running == 4
                    && shown.contains("web 10.80.0.2 fd80::2")
                    && shown.contains("back 10.90.0.2")
            });
        Ok(())
    }

    fn reach_each_other(&mut self) -> Result<()> {
        self.steps.step("They reach each other");
        for (what, url) in [
            ("TCP over IPv4", "http://10.80.0.2/"),
            ("TCP over IPv6", "http://[fd80::2]/"),
        ] {
            let mut curl = self.tombolo("exec app curl -sS --max-time 5");
            curl.arg(url);
            let page = self.must(what, View::All, curl)?;
            self.steps.check("the page is the one of www", page == PAGE);
        }
        let ask = self.tombolo("exec app python3 /run/scratch/udp.py ask 10.90.0.2 7 hello");
        let answer = self.must("UDP, from a sandbox on both networks", View::All, ask)?;
        let heard = answer == "'hello' from 10.90.0.3\n";
        self.steps
            .check("the server sees the client's own address", heard);
        let ping =
            self.tombolo("run --rm --name passer-by --network web ping -c 3 -i 0.1 -q fd80::2");
        let view = View::With(&["packets"]);
        self.must("ping over IPv6, from a sandbox of one command", view, ping)?;
        Ok(())
    }

    fn reach_the_outside(&mut self) -> Result<()> {
        self.steps
            .step("They reach the world outside, which sees the host's address");
        for (far, seen) in [
            (scratch::FAR_V4.to_owned(), scratch::HOST_V4),
            (format!("[{}]", scratch::FAR_V6), scratch::HOST_V6),
        ] {
            let mut curl = self.tombolo("exec visitor curl -sS --max-time 5");
            curl.arg(format!("http://{far}/"));
            let page = self.must("the server outside answers", View::All, curl)?;
            let masqueraded = page == format!("you come from {seen}\n");
            self.steps
                .check(&format!("it sees {seen}, the host"), masqueraded);
        }
        Ok(())
    }

    fn isolation(&mut self) -> Result<()> {
        self.steps
            .step("Networks are apart from each other, and the world from them");
        let ask = self.tombolo("exec visitor python3 /run/scratch/udp.py ask 10.90.0.2 7 hello");
        self.must_fail("no UDP from web to back", ask)?;
        let curl = self.tombolo("exec echo curl -sS --max-time 1 http://10.80.0.2/");
        self.must_fail("no TCP from back to web", curl)?;
        let route = ["route", "add", "10.80.0.0/24", "via", scratch::HOST_V4];
        process::read(self.scratch.outside("ip").args(route))?;
        let mut curl = self.scratch.outside("curl");
        curl.args(["-sS", "--max-time", "1", "http://10.80.0.2/"]);
        self.must_fail("no way in from outside, even with a route", curl)?;
        let create = self.tombolo("network create --internal --subnet 10.70.0.0/24 vault");
        self.must("an internal network is made", View::Nothing, create)?;
        let mut curl = self.tombolo("run --rm --network vault curl -sS --max-time 1");
        curl.arg(format!("http://{}/", scratch::FAR_V4));
        self.must_fail("an internal network has no way out", curl)?;
        Ok(())
    }

    fn pictures(&mut self) -> Result<()> {
        self.steps.step("Looking at it");
        let topology = self.tombolo("topology");
        let shown = self.must("topology shows who is where", View::All, topology)?;
        self.steps.check("app is shown on two networks", {
            shown.lines().filter(|line| line.contains("─ app ")).count() == 2
        });
        let explain = self.tombolo("explain echo");
        let kinds = View::With(&["endpoint ", "netns ", "address ", "fdb "]);
        let shown = self.must(
            "explain names every kernel object of an endpoint",
            kinds,
            explain,
        )?;
        let in_place = |line: &&str| line.starts_with("in place");
        let objects = shown.lines().skip(2).filter(|line| !line.is_empty());
        self.steps.check(
            "all of them are in place",
            objects.clone().all(|l| in_place(&l)),
        );
        let doctor = self.tombolo("doctor");
        let view = View::With(&["forwarding", "uplink", "error"]);
        self.must(
            "doctor finds nothing that keeps it from working",
            view,
            doctor,
        )?;
        Ok(())
    }

    fn crash(&mut self, dropped: u64) -> Result<()> {
        self.steps
            .step("kill -9 of the daemon, while visitor has been pinging www all the time");
        if let Some(daemon) = self.daemon.take() {
            self.steps.typed("kill -9 $DAEMON");
            daemon.signal("KILL")?;
        }
        let ps = self.tombolo("--no-autostart network ls");
        self.must_fail("no daemon answers", ps)?;
        let curl = self.tombolo("exec app curl -sS --max-time 5 http://10.80.0.2/");
        self.must("everything goes on without it", View::All, curl)?;
        self.kept()?;
        self.asked_meanwhile(Self::start_daemon)?;
        let drift = self.tombolo("drift");
        self.must(
            "the new daemon finds everything as it should be",
            View::All,
            drift,
        )?;
        let kill = self.tombolo("kill -s INT visitor");
        self.must("visitor is told to end", View::Nothing, kill)?;
        let mut wait = self.tombolo("wait visitor");
        process::read(&mut wait)?;
        let logs = self.tombolo("logs --tail 3 visitor");
        let view = View::With(&["packets"]);
        let shown = self.must("visitor's ping has counted", view, logs)?;
        let dropped = dropped_by_the_machine()? - dropped;
        if dropped > 0 {
            self.steps.note(&format!(
                "other work made this machine drop {dropped} packets: a loss would prove nothing"
            ));
        } else {
            let none = shown.contains(" 0% packet loss");
            self.steps.check("not one packet is lost", none);
        }
        Ok(())
    }

    fn stop_and_start(&mut self) -> Result<()> {
        self.steps.step("A stopped sandbox keeps its address");
        let stop = self.tombolo("stop -t 1 echo");
        self.must("echo stops", View::Nothing, stop)?;
        let list = self.tombolo("endpoint ls --network back");
        let shown = self.must("its endpoint stays", View::All, list)?;
        let kept = |line: &str| line.contains("10.90.0.2/24") && line.contains("allocated");
        self.steps
            .check("with its address", shown.lines().any(kept));
        let run = self.tombolo("run --rm --network back ip -4 -brief address show eth0");
        let shown = self.must("a newcomer runs", View::All, run)?;
        self.steps.check("it gets another address", {
            shown.contains(" 10.90.0.") && !shown.contains("10.90.0.2/")
        });
        let start = self.tombolo("start echo");
        self.must("echo starts again", View::Nothing, start)?;
        self.wait_for_server("echo", "-Huln", 7)?;
        let ask = self.tombolo("exec app python3 /run/scratch/udp.py ask 10.90.0.2 7 again");
        self.must("it answers at the same address", View::All, ask)?;
        Ok(())
    }

    fn mending(&mut self) -> Result<()> {
        self.steps.step("What others break is mended unasked");
        let rules = |scratch: &Scratch| words(scratch.host("nft").args(["list", "ruleset"]));
        let before = rules(self.scratch)?;
        let mut flush = self.scratch.host("nft");
        flush.args(["flush", "ruleset"]);
        let scratch = self.scratch;
        let same = || rules(scratch).is_ok_and(|now| now == before);
        self.mended("every firewall rule is back", flush, same)?;
        let link = self.host_link("echo")?;
        let mut delete = self.scratch.host("ip");
        delete.args(["link", "delete", &link]);
        let there = || process::read(scratch.host("ip").args(["link", "show", &link])).is_ok();
        self.mended("echo's cable is back", delete, there)?;
        self.wait_for_answer()?;
        let ask = self.tombolo("exec app python3 /run/scratch/udp.py ask 10.90.0.2 7 mended");
        self.must("echo answers again", View::All, ask)?;
        let drift = self.tombolo("drift");
        self.must("no drift is left", View::All, drift)?;
        Ok(())
    }

    fn removal(&mut self) -> Result<()> {
        self.steps.step("Removing everything");
        let rm = self.tombolo("network rm web");
        self.must_fail("a network in use stays", rm)?;
        let rm = self.tombolo("rm -f www echo app visitor shop old wide db friend stranger");
        self.must("the sandboxes are removed", View::Nothing, rm)?;
        let rm = self.tombolo("network rm web back vault apart");
        self.must("and the networks", View::Nothing, rm)?;
        if let Some(daemon) = self.daemon.take() {
            self.steps.typed("kill $DAEMON");
            daemon.signal("TERM")?;
        }
        self.keeper_ends()
    }

    fn nothing_left(&mut self) -> Result<()> {
        self.steps.step("Nothing is left on the host");
        let links = ["-brief", "link"];
        self.steps
            .run(View::All, self.scratch.host("ip").args(links))?;
        let after = host_state(self.scratch)?;
        let same = after == self.before;
        self.steps.check(
            "links, addresses, routes, neighbours, rules and sysctls are as before",
            same,
        );
        let changes: Vec<String> = after.symmetric_difference(&self.before).cloned().collect();
        self.steps.detail(&changes);
        let sets = process::read(
            self.scratch
                .host("nft")
                .args(["list", "table", "inet", "tombolo"]),
        )?;
        // Where the relay is does not depend on what exists.
        let mut blocks = sets.split("\n\t}");
        let filled = |block: &str| block.contains("elements") && !block.contains("map relay {");
        self.steps.check(
            "our firewall table holds no element of anything that existed",
            !blocks.any(filled),
        );
        for (what, place) in [
            ("network namespace", "/run/tombolo/netns"),
            ("file of a sandbox", "/run/tombolo/sandboxes"),
            ("state of a process", "/run/tombolo/run"),
        ] {
            let names = visible_names(place)?;
            self.steps
                .check(&format!("no {what} is left"), names.is_empty());
            self.steps.detail(&names);
        }
        let alive = programs(self.scratch)?;
        self.steps
            .check("no process of a sandbox is left", alive.is_empty());
        self.steps.detail(&alive);
        Ok(())
    }

    /// Starts the daemon, and waits until it answers.
    fn start_daemon(&mut self) -> Result<()> {
        // Without the default network, all that is seen later was asked for.
        let mut command = self.tombolo("daemon --bridge none");
        self.steps
            .typed(&format!("{} &", process::render(&command)));
        let log = format!("{PLACE}/daemon.log");
        let start = Instant::now();
        let mut daemon = Background::start(&mut command, Path::new(&log))?;
        let ready = || {
            let mut info = self.tombolo("--no-autostart info");
            process::read(&mut info).is_ok()
        };
        daemon.wait_until(START_LIMIT, ready)?;
        let took = start.elapsed().as_millis();
        println!("      ready after {took} ms");
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Shows `damage`, does it, and checks that `holds` is true again soon.
    fn mended(&mut self, what: &str, mut damage: Command, holds: impl Fn() -> bool) -> Result<()> {
        self.steps.run(View::All, &mut damage)?;
        let start = Instant::now();
        let mut mended = holds();
        let mut took = start.elapsed();
        while !mended && took < MEND_LIMIT {
            sleep(Duration::from_millis(5));
            mended = holds();
            took = start.elapsed();
        }
        self.steps
            .check(&format!("{what} after {} ms", took.as_millis()), mended);
        Ok(())
    }

    /// Waits until a sandbox listens on `port`, by the flags of `ss` for its protocol.
    fn wait_for_server(&self, sandbox: &str, flags: &str, port: u16) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut ss = self.tombolo(&format!("exec {sandbox} ss {flags}"));
            ss.arg(format!("sport = :{port}"));
            match process::read(&mut ss) {
                Ok(sockets) if !sockets.is_empty() => return Ok(()),
                outcome if start.elapsed() > START_LIMIT => {
                    let shown = outcome?;
                    anyhow::bail!("{sandbox} does not listen on port {port}: {shown}");
                }
                Ok(_) | Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Waits until `echo` answers.
    fn wait_for_answer(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut ask = self.tombolo("exec app python3 /run/scratch/udp.py ask 10.90.0.2 7 x");
            match process::read(&mut ask) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > START_LIMIT => return Err(error),
                Err(_) => sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The host's end of the cable of an endpoint.
    fn host_link(&self, endpoint: &str) -> Result<String> {
        let mut inspect = self.tombolo("endpoint inspect");
        let text = process::read(inspect.arg(endpoint))?;
        let found: serde_json::Value =
            serde_json::from_str(&text).context("the endpoint is not shown as JSON")?;
        let name = found[0]["host_interface"].as_str();
        Ok(name.context("the endpoint has no cable")?.to_owned())
    }

    fn must(&mut self, what: &str, view: View, mut command: Command) -> Result<String> {
        self.steps.must(what, view, &mut command)
    }

    fn must_fail(&mut self, what: &str, mut command: Command) -> Result<()> {
        self.steps.must_fail(what, &mut command)
    }

    /// `tombolo` on the scratch host, with these words.
    fn tombolo(&self, words: &str) -> Command {
        let mut command = self.scratch.host("tombolo");
        command.args(words.split(' '));
        command
    }
}

/// Writes the small programs of the scenario, and starts the server in the world outside.
fn lay_out(scratch: &Scratch) -> Result<Background> {
    let site = format!("{PLACE}/site");
    fs::create_dir_all(&site).context("cannot make the folder of the web site")?;
    for (name, text) in [
        ("mirror.py", include_str!("mirror.py")),
        ("udp.py", include_str!("udp.py")),
        ("site/index.html", PAGE),
    ] {
        let path = format!("{PLACE}/{name}");
        fs::write(&path, text).with_context(|| format!("cannot write {path}"))?;
    }
    let mut mirror = scratch.outside("python3");
    mirror.arg(format!("{PLACE}/mirror.py"));
    let mut mirror = Background::start(&mut mirror, Path::new("/run/scratch/mirror.log"))?;
    let listens = || {
        let sockets = process::read(scratch.outside("ss").args(["-Htln", "sport = :80"]));
        sockets.is_ok_and(|lines| !lines.is_empty())
    };
    mirror.wait_until(START_LIMIT, listens)?;
    Ok(mirror)
}

/// What a network leaves its traces in on a host, line by line.
fn host_state(scratch: &Scratch) -> Result<BTreeSet<String>> {
    let mut state = BTreeSet::new();
    for line in [
        "ip -brief link",
        "ip -oneline address",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "ip neighbour show nud permanent",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv6.conf.eth0.accept_ra",
        "sysctl net.ipv4.ip_local_reserved_ports",
    ] {
        let mut words = line.split(' ');
        let mut command = scratch.host(words.next().unwrap_or_default());
        let text = process::read(command.args(words))?;
        // The kernel adds its own link-local addresses and routes when it likes.
        let lines = text.lines().filter(|line| !line.contains(" fe80::"));
        state.extend(lines.map(|line| line.trim_end().to_owned()));
    }
    Ok(state)
}

/// How many packets, of all namespaces, the kernel has dropped because their processor did not keep up: the second
/// column of `/proc/net/softnet_stat`, which has a line for each processor.
fn dropped_by_the_machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat").context("cannot count lost packets")?;
    let counts = text.lines().map(|line| {
        let word = line.split(' ').nth(1).unwrap_or_default();
        u64::from_str_radix(word, 16).context("the count of lost packets is no number")
    });
    counts.sum()
}

/// The words that a command prints, in an order of their own: sets have none.
fn words(command: &mut Command) -> Result<Vec<String>> {
    let text = process::read(command)?;
    let apart = |c: char| c.is_whitespace() || c == ',';
    let words = text.split(apart).filter(|word| !word.is_empty());
    let mut words: Vec<String> = words.map(str::to_owned).collect();
    words.sort_unstable();
    Ok(words)
}

/// What lies in a folder; none when there is no folder.
fn visible_names(place: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {place}")),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .with_context(|| format!("cannot list {place}"))?
            .file_name();
        let name = name.to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    Ok(names)
}

/// The processes of this host that the demo itself does not need any more.
fn programs(scratch: &Scratch) -> Result<Vec<String>> {
    let text = process::read(scratch.host("ps").args(["-eo", "pid=,args="]))?;
    let ours = [
        "tombolo",
        "http.server",
        "udp.py",
        "mirror.py inside",
        "sleep infinity",
        "ping ",
    ];
    let alive =
        |line: &&str| ours.iter().any(|word| line.contains(word)) && !line.contains(super::INSIDE);
    Ok(text
        .lines()
        .filter(alive)
        .map(|line| line.trim().to_owned())
        .collect())
}
