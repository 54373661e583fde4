//! Steps about published ports and links.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Scenario;
use crate::demo::scratch;
use crate::demo::steps::View;
use crate::process;

/// The program that tells its clients who they are; the last word tells it from the one outside.
const MIRROR: &str = "python3 /run/scratch/mirror.py inside";
/// Longest that a client waits for what must not come.
const REFUSED: [&str; 3] = ["-sS", "--max-time", "1"];
/// Longest that a client waits for an answer.
const ANSWERED: [&str; 3] = ["-sS", "--max-time", "5"];
/// How long the keeper of ports may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

impl Scenario<'_> {
    /// Publishes ports, and reaches them from everywhere.
    pub(super) fn published(&mut self) -> Result<()> {
        self.steps.step("Published ports, reached from everywhere");
        for line in [
            format!("--name shop --network web -p 8080:80 {MIRROR}"),
            format!("--name old --network back -p 8081:80 {MIRROR}"),
        ] {
            let run = self.tombolo(&format!("run -d {line}"));
            self.must("a server with a published port runs", View::Nothing, run)?;
        }
        self.wait_for_server("shop", "-Htln", 80)?;
        self.wait_for_server("old", "-Htln", 80)?;
        let list = self.tombolo("publish ls");
        self.must("they are listed", View::All, list)?;
        let v4 = format!("http://{}:8080/", scratch::HOST_V4);
        let v6 = format!("http://[{}]:8080/", scratch::HOST_V6);
        let old = format!("http://[{}]:8081/", scratch::HOST_V6);
        let (near4, near6) = ("http://127.0.0.1:8080/", "http://[::1]:8080/");
        for (what, client, url, seen) in [
            (
                "the outside over IPv4",
                self.outside(),
                &*v4,
                scratch::OUTSIDE_V4,
            ),
            (
                "the outside over IPv6",
                self.outside(),
                &v6,
                scratch::OUTSIDE_V6,
            ),
            (
                "this host at 127.0.0.1",
                self.host_client(),
                near4,
                "10.80.0.1",
            ),
            ("this host at ::1", self.host_client(), near6, "fd80::1"),
            (
                "a sandbox of another network",
                self.inside("echo"),
                &v4,
                "10.90.0.2",
            ),
            ("the sandbox itself", self.inside("shop"), &v4, "10.80.0.1"),
            (
                "an IPv6 client of a sandbox without IPv6",
                self.outside(),
                &old,
                "10.90.0.1",
            ),
        ] {
            self.is_seen(what, client, url, seen)?;
        }
        let run = self.tombolo("run -d --network web -p 8080:80 sleep infinity");
        self.must_fail("a port that is taken is refused", run)?;
        Ok(())
    }

    /// Changes who may reach a port while its server runs.
    pub(super) fn filtered(&mut self) -> Result<()> {
        self.steps
            .step("Who may reach a port is changed while it runs");
        let url = format!("http://{}:8080/", scratch::HOST_V4);
        let publish = self.tombolo("publish add shop 8080:80,from=10.10.10.0/24");
        self.must("only 10.10.10.0/24 is admitted", View::All, publish)?;
        let mut curl = self.scratch.outside("curl");
        curl.args(REFUSED).arg(&url);
        self.must_fail("the outside finds it closed", curl)?;
        let from = format!("8080:80,from=10.10.10.0/24,from={}", scratch::OUTSIDE_V4);
        let mut publish = self.tombolo("publish add shop");
        publish.arg(from);
        self.must("the outside is admitted, too", View::Nothing, publish)?;
        let outside = self.outside();
        self.is_seen("the outside again", outside, &url, scratch::OUTSIDE_V4)
    }

    /// Publishes ten thousand ports at once.
    pub(super) fn wide(&mut self) -> Result<()> {
        self.steps.step("Ten thousand ports are one entry");
        let run = self
            .tombolo("run -d --name wide --network back python3 /run/scratch/udp.py serve 27777");
        self.must("a UDP server runs", View::Nothing, run)?;
        self.wait_for_server("wide", "-Huln", 27777)?;
        let start = Instant::now();
        let publish = self.tombolo("publish add wide 20000-29999:20000-29999/udp");
        self.must("10,000 ports are published", View::All, publish)?;
        let took = start.elapsed().as_millis();
        println!("      after {took} ms, with the start of the command");
        let explain = self.tombolo("explain wide");
        let view = View::With(&["publish_", "port "]);
        let shown = self.must("explain shows what they are", view, explain)?;
        let entries = shown.lines().filter(|line| line.contains(" publish_"));
        self.steps
            .check("one element translates them all", entries.count() == 1);
        let mut ask = self.scratch.outside("python3");
        let words = [
            "/run/scratch/udp.py",
            "ask",
            scratch::HOST_V4,
            "27777",
            "hello",
        ];
        ask.args(words);
        let answer = self.must("the outside reaches one of them", View::All, ask)?;
        let heard = answer == format!("'hello' from {}\n", scratch::OUTSIDE_V4);
        self.steps
            .check("the server sees the client's own address", heard);
        Ok(())
    }

    /// Links two sandboxes of a network that keeps its endpoints apart.
    pub(super) fn linked(&mut self) -> Result<()> {
        self.steps
            .step("A network that keeps its endpoints apart, and a link");
        let create = "network create --icc=false --subnet 10.60.0.0/24 apart";
        let create = self.tombolo(create);
        self.must("the network is made", View::Nothing, create)?;
        for line in [
            format!("--name db --network apart --expose 80 {MIRROR}"),
            "--name friend --network apart --link db:store sleep infinity".to_owned(),
            "--name stranger --network apart sleep infinity".to_owned(),
        ] {
            let run = self.tombolo(&format!("run -d {line}"));
            self.must("a sandbox runs on it", View::Nothing, run)?;
        }
        self.wait_for_server("db", "-Htln", 80)?;
        let friend = self.inside("friend");
        self.is_seen(
            "who is linked, by name",
            friend,
            "http://store/",
            "10.60.0.3",
        )?;
        let mut curl = self.tombolo("exec stranger curl");
        curl.args(REFUSED).arg("http://10.60.0.2/");
        self.must_fail("who is not linked finds nothing", curl)?;
        let mut curl = self.tombolo("exec db curl");
        curl.args(REFUSED).arg("http://10.60.0.3/");
        self.must_fail("a link leads in one direction", curl)?;
        Ok(())
    }

    /// Shows that a published port goes on without the daemon and stays reserved.
    pub(super) fn kept(&mut self) -> Result<()> {
        let url = format!("http://{}:8080/", scratch::HOST_V4);
        let outside = self.outside();
        self.is_seen(
            "the outside without a daemon",
            outside,
            &url,
            scratch::OUTSIDE_V4,
        )?;
        let mut thief = self.scratch.host("python3");
        thief.args(["-c", "import socket; socket.create_server((\"\", 8080))"]);
        let output = process::capture(&mut thief)?;
        self.steps.typed(&process::render(&thief));
        let refused = String::from_utf8_lossy(&output.stderr).contains("Address already in use");
        self.steps.check("no other program gets the port", refused);
        Ok(())
    }

    /// Waits until the keeper of ports has ended, as it does when nothing is published any more.
    pub(super) fn keeper_ends(&self) -> Result<()> {
        let start = Instant::now();
        let is_keeper = |line: &String| line.contains("tombolo-keeper");
        while super::programs(self.scratch)?.iter().any(is_keeper) && start.elapsed() < END_LIMIT {
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Asks a mirror at `url`, and checks that it is reached and whom it sees.
    fn is_seen(&mut self, who: &str, mut client: Command, url: &str, seen: &str) -> Result<()> {
        client.args(ANSWERED).arg(url);
        let page = self.must(&format!("it answers {who}"), View::All, client)?;
        self.steps.check(
            &format!("and sees {seen}"),
            page == format!("you come from {seen}\n"),
        );
        Ok(())
    }

    fn outside(&self) -> Command {
        self.scratch.outside("curl")
    }

    fn host_client(&self) -> Command {
        self.scratch.host("curl")
    }

    fn inside(&self, sandbox: &str) -> Command {
        self.tombolo(&format!("exec {sandbox} curl"))
    }
}
