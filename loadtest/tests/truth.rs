//! The load test finds what a server does wrong, and finds nothing wrong with one that does all right.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{Fault, hub, loadtest, run};

/// Two rooms of three, a hundred messages a second for one second.
const SHORT: [&str; 12] =
    ["--preset", "rooms", "-c", "6", "--rooms", "2", "--sizes", "uniform", "-r", "100", "-d", "1s"];

/// The faults that are not 0.
fn faults(result: &Value) -> Vec<(String, u64)> {
    let faults = result["faults"].as_object().expect("a result has faults");
    let counts = faults.iter().filter_map(|(name, count)| Some((name.clone(), count.as_u64()?)));
    counts.filter(|(_, count)| *count > 0).collect()
}

fn found(fault: Fault) -> Vec<(String, u64)> {
    let (code, result) = run(&hub(fault), &SHORT);
    assert_eq!(code, i32::from(!faults(&result).is_empty()), "{result}");
    assert_eq!(result["ok"], faults(&result).is_empty());
    faults(&result)
}

fn only(name: &str, count: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), count)]
}

#[test]
fn finds_nothing_wrong_with_a_server_that_does_all_right() {
    assert_eq!(found(Fault::None), []);
}

#[test]
fn finds_one_message_that_one_member_did_not_get() {
    // One publisher in each of the two rooms.
    assert_eq!(found(Fault::Lose), only("lost", 2));
}

#[test]
fn forgives_what_a_gap_names_but_no_gap_that_names_what_is_not_missing() {
    assert_eq!(found(Fault::LoseAndTell), []);
    assert_eq!(found(Fault::TellFalsely), only("false_gaps", 4));
}

#[test]
fn finds_a_message_that_came_twice() {
    assert_eq!(found(Fault::Double), only("duplicates", 2));
}

#[test]
fn finds_messages_that_came_in_another_order() {
    assert_eq!(found(Fault::Swap), only("reordered", 2));
}

#[test]
fn finds_a_message_of_a_room_that_the_receiver_is_not_in() {
    assert_eq!(found(Fault::Mix), only("foreign", 2));
}

#[test]
fn finds_connections_that_the_server_ended() {
    assert_eq!(found(Fault::Close), only("ended", 2));
    assert_eq!(found(Fault::Vanish), only("ended", 2));
}

#[test]
fn an_open_loop_shows_a_stall_to_all_messages_that_it_held_up() {
    let stall = Fault::Stall(Duration::from_millis(500));
    let rate = ["--preset", "broadcast", "-c", "3", "-r", "200", "-d", "2s"];
    let (_, open) = run(&hub(stall), &rate);
    let closed = ["--preset", "broadcast", "-c", "3", "--window", "1", "-d", "2s"];
    let (_, closed) = run(&hub(stall), &closed);

    // A quarter of the two seconds' messages waited; a closed loop has only one under way at the time.
    let figure = |result: &Value, name: &str| result["figures"][name].as_f64().unwrap();
    assert!(figure(&open, "delivery_p90_us") > 200_000.0, "{open}");
    assert!(figure(&closed, "delivery_p90_us") < 200_000.0, "{closed}");
    assert!(figure(&open, "delivery_max_us") > 450_000.0 && figure(&closed, "delivery_max_us") > 450_000.0);
}

#[test]
fn a_refused_join_or_upgrade_ends_the_run_and_says_why() {
    for (fault, words) in [(Fault::RefuseJoins, "forbidden"), (Fault::Full, "503")] {
        let (code, result) = run(&hub(fault), &SHORT);
        assert_eq!(code, 1);
        let stopped = result["stopped"].as_str().unwrap();
        let remarks = result["faults"]["remarks"].to_string();
        assert!(stopped.contains(words) || remarks.contains(words), "{stopped} {remarks}");
    }
}

#[test]
fn a_threshold_that_is_missed_ends_with_99_and_a_wrong_one_with_2() {
    let url = hub(Fault::None);
    let with = |expression: &'static str| [&SHORT[..], &["--threshold", expression]].concat();
    assert_eq!(run(&url, &with("lost==0")).0, 0);
    let (code, result) = run(&url, &with("delivery_p99<1us"));
    assert_eq!((code, &result["thresholds"][0]["ok"]), (99, &Value::Bool(false)));
    let output = loadtest(&[&["run", &url], &with("lost is 0")[..]].concat());
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_same_seed_does_the_same() {
    let url = hub(Fault::None);
    let flags = [&SHORT[..], &["--arrivals", "poisson", "--seed", "7"]].concat();
    let published = |flags: &[&str]| run(&url, flags).1["figures"]["published"].as_f64().unwrap();
    // Messages at the very end of the second may or may not make it.
    assert!((published(&flags) - published(&flags)).abs() <= 2.0);
}

#[test]
fn writes_what_it_saw_and_makes_reports_and_comparisons_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let url = hub(Fault::None);
    assert_eq!(run(&url, &[&SHORT[..], &["-o", &path("one")]].concat()).0, 0);
    assert_eq!(run(&url, &[&SHORT[..], &["-o", &path("two")]].concat()).0, 0);

    for name in ["result.json", "report.html", "latency.hlog"] {
        assert!(
            std::fs::metadata(path("one")).is_ok() && directory.path().join("one").join(name).is_file(),
            "{name}"
        );
    }
    let (one, two) = (path("one/result.json"), path("two/result.json"));
    let report = loadtest(&["report", &one]);
    assert!(report.status.success() && String::from_utf8_lossy(&report.stdout).contains("delivery"));
    assert!(loadtest(&["report", &one, "--html", &path("again.html")]).status.success());
    assert!(std::fs::read_to_string(path("again.html")).unwrap().contains("<svg"));
    assert!(loadtest(&["compare", &one, &two]).status.success());
    let mut worse: Value = serde_json::from_slice(&std::fs::read(&two).unwrap()).unwrap();
    worse["figures"]["delivery_p99_us"] = 1e9.into();
    std::fs::write(path("worse.json"), worse.to_string()).unwrap();
    let compared = loadtest(&["compare", &one, &path("worse.json"), "--fail-over", "50%"]);
    assert_eq!(compared.status.code(), Some(99), "{}", String::from_utf8_lossy(&compared.stdout));
}

#[test]
fn a_preset_can_be_saved_as_a_scenario_file_and_run() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    let saved = loadtest(&["presets", "rooms", "-c", "6", "--rooms", "2", "-r", "50", "-d", "500ms"]);
    std::fs::write(&path, saved.stdout).unwrap();
    let words = ["run", &hub(Fault::None), path.to_str().unwrap(), "--json", "--quiet"];
    let output = loadtest(&words);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), result["name"].as_str()), (Some(0), Some("rooms")), "{result}");
    let more = loadtest(&[&words[..], &["-c", "7"]].concat());
    assert_eq!(more.status.code(), Some(2), "what the file says is not said again");
}

#[test]
fn other_servers_are_driven_by_a_dialect_of_ones_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mine.toml");
    let dialect = "name = 'mine'\njoin = '{\"type\":\"join\",\"room_id\":\"{room}\"}'\njoined = '\"ack\"'\n\
                   publish = '{\"type\":\"message\",\"room_id\":\"{room}\",\"any\":\"{message}\"}'\n";
    std::fs::write(&path, dialect).unwrap();
    let (code, result) =
        run(&hub(Fault::None), &[&SHORT[..], &["--dialect", path.to_str().unwrap()]].concat());
    assert_eq!(code, 0, "{result}");
    assert!(result["figures"]["deliveries"].as_f64().unwrap() >= 200.0);
}

#[test]
fn ctrl_c_prints_what_there_is_and_ends_with_130() {
    let url = hub(Fault::None);
    let mut run = std::process::Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"))
        .args(["run", &url, "-c", "3", "-d", "1h", "--warmup", "0", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(run.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("deliveries/s")), "it tells how it goes");
    let id = rustix::process::Pid::from_raw(i32::try_from(run.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = run.wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(result["stopped"].as_str().unwrap().contains("interrupted"));
    assert!(result["figures"]["deliveries"].as_f64().unwrap() > 0.0, "{result}");
}
