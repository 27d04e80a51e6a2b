//! The outcome of a run: lines for people, one flat JSON object for machines.

use std::fmt;

use serde::Serialize;

/// Above this share of a core the client is what limits the figures.
const BUSY: f64 = 0.9;

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Report {
    Broadcast(Broadcast),
    Idle(Idle),
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Broadcast {
    pub(crate) schema: u32,
    pub(crate) preset: &'static str,
    pub(crate) connections: u32,
    pub(crate) rooms: u32,
    pub(crate) window: u32,
    pub(crate) message_bytes: usize,
    pub(crate) connects_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) latency_p50_us: f64,
    pub(crate) latency_p99_us: f64,
    pub(crate) latency_max_us: f64,
    #[serde(flatten)]
    pub(crate) server: Option<Server>,
    pub(crate) client_cpu_percent: f64,
    pub(crate) client_was_bottleneck: bool,
    #[serde(flatten)]
    pub(crate) faults: Faults,
    pub(crate) ok: bool,
}

/// What the server cost while it was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names stand in one flat JSON object")]
pub(crate) struct Server {
    pub(crate) server_cpu_percent: f64,
    pub(crate) server_cpu_us_per_delivery: f64,
    pub(crate) server_resident_bytes: f64,
}

/// What must not happen.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) foreign: u64,
    pub(crate) surprises: u64,
    pub(crate) ended: u64,
    /// Examples in words.
    pub(crate) remarks: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Idle {
    pub(crate) schema: u32,
    pub(crate) preset: &'static str,
    pub(crate) connections: u32,
    pub(crate) baseline: u32,
    pub(crate) connects_per_second: f64,
    pub(crate) held_seconds: f64,
    #[serde(flatten)]
    pub(crate) server: Option<IdleServer>,
    pub(crate) client_cpu_percent: f64,
    pub(crate) client_was_bottleneck: bool,
    #[serde(flatten)]
    pub(crate) faults: Faults,
    pub(crate) ok: bool,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names stand in one flat JSON object")]
pub(crate) struct IdleServer {
    pub(crate) server_bytes_per_connection: f64,
    pub(crate) server_resident_bytes: f64,
    pub(crate) server_cpu_us_per_connect: f64,
    pub(crate) server_held_cpu_percent: f64,
}

impl Report {
    pub(crate) fn ok(&self) -> bool {
        match self {
            Self::Broadcast(report) => report.ok,
            Self::Idle(report) => report.ok,
        }
    }
}

impl Faults {
    pub(crate) fn none(&self) -> bool {
        [self.lost, self.duplicates, self.reordered, self.foreign, self.surprises, self.ended] == [0; 6]
    }
}

/// Whether the client used up its core.
pub(crate) fn was_bottleneck(cpu: f64, seconds: f64) -> bool {
    cpu > seconds * BUSY
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broadcast(report) => report.fmt(f),
            Self::Idle(report) => report.fmt(f),
        }
    }
}

impl fmt::Display for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, rooms, window, message_bytes, seconds, .. } = self;
        writeln!(
            f,
            "broadcast    {connections} connections, {rooms} room(s), {window} in flight, \
             {message_bytes} bytes, measured {seconds:.1} s"
        )?;
        writeln!(f, "connects     {:.0}/s", self.connects_per_second)?;
        writeln!(
            f,
            "deliveries   {:.0}/s ({:.0} messages/s)",
            self.deliveries_per_second, self.messages_per_second
        )?;
        let (p50, p99, max) = (self.latency_p50_us, self.latency_p99_us, self.latency_max_us);
        writeln!(f, "latency      p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us (sampled)")?;
        if let Some(server) = &self.server {
            let Server { server_cpu_percent, server_cpu_us_per_delivery, server_resident_bytes } = server;
            let mebibytes = server_resident_bytes / 1_048_576.0;
            writeln!(
                f,
                "server       {server_cpu_us_per_delivery:.3} us CPU per delivery, \
                 {server_cpu_percent:.0} % of a core, {mebibytes:.1} MiB resident"
            )?;
        }
        write_client(f, self.client_cpu_percent, self.client_was_bottleneck)?;
        self.faults.fmt(f)
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, baseline, held_seconds, connects_per_second, .. } = self;
        writeln!(
            f,
            "idle         {connections} connections (measured from {baseline}), held {held_seconds:.1} s"
        )?;
        writeln!(f, "connects     {connects_per_second:.0}/s")?;
        if let Some(server) = &self.server {
            let mebibytes = server.server_resident_bytes / 1_048_576.0;
            writeln!(
                f,
                "server       {:.0} bytes per connection, {mebibytes:.1} MiB resident, {:.1} us CPU per connect, \
                 {:.1} % of a core while idle",
                server.server_bytes_per_connection,
                server.server_cpu_us_per_connect,
                server.server_held_cpu_percent
            )?;
        }
        write_client(f, self.client_cpu_percent, self.client_was_bottleneck)?;
        self.faults.fmt(f)
    }
}

fn write_client(f: &mut fmt::Formatter<'_>, percent: f64, bottleneck: bool) -> fmt::Result {
    let remark = if bottleneck { ": the client was the bottleneck, the server can do more" } else { "" };
    writeln!(f, "client       {percent:.0} % of a core{remark}")
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.none() {
            return write!(f, "faults       none");
        }
        let Self { lost, duplicates, reordered, foreign, surprises, ended, remarks } = self;
        write!(
            f,
            "FAULTS       {lost} lost, {duplicates} duplicates, {reordered} reordered, {foreign} foreign, \
             {surprises} unexpected texts, {ended} connections ended"
        )?;
        remarks.iter().try_for_each(|remark| write!(f, "\n             {remark}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_flat_so_that_a_shell_can_read_it() {
        let report = Report::Broadcast(Broadcast { server: Some(Server::default()), ..Broadcast::default() });
        let json = serde_json::to_value(&report).unwrap();
        assert!(json.get("server_cpu_us_per_delivery").is_some() && json.get("lost").is_some());
        assert!(json.as_object().unwrap().values().all(|value| !value.is_object()));
    }

    #[test]
    fn faults_and_a_busy_client_are_said_aloud() {
        let faults = Faults { lost: 3, remarks: vec!["why".into()], ..Faults::default() };
        let report = Broadcast { faults, client_was_bottleneck: true, ..Broadcast::default() };
        let text = report.to_string();
        assert!(text.contains("3 lost") && text.contains("why") && text.contains("bottleneck"));
        assert!(was_bottleneck(0.95, 1.0) && !was_bottleneck(0.5, 1.0));
    }
}
