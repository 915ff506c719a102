mod simulated;

use super::*;
use std::time::Duration;

const SYSTEM: i64 = 7;

/// `max_lag` of a second, probes ten times a second.
fn bounds() -> LagBounds {
    LagBounds::new(Duration::from_secs(1), Duration::from_millis(100))
}

/// Three servers of one shard, driven by times in milliseconds.
struct Scene {
    estimate: Estimate,
    start: Instant,
}

impl Scene {
    fn new() -> Scene {
        let addresses = ["a", "b", "c"].map(String::from).to_vec();
        Scene { estimate: Estimate::new(ShardId(0), "s1".into(), addresses, bounds()), start: Instant::now() }
    }

    /// `a` a primary, `b` and `c` its replicas, all seen on timeline 1 at position 100.
    fn settled() -> Scene {
        let mut scene = Scene::new();
        scene.standby(0, 1, 100, 1);
        scene.standby(0, 2, 100, 1);
        scene.primary(0, 0, 100, 1);
        assert_eq!(scene.roles(), "PRR");
        scene
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn seen(&mut self, ms: u64, server: usize, observation: Observation) -> bool {
        self.estimate.apply(server, self.at(ms), Report::Seen(observation))
    }

    fn primary(&mut self, ms: u64, server: usize, lsn: u64, timeline: u32) -> bool {
        self.seen(ms, server, observation(false, lsn, Some(timeline)))
    }

    fn standby(&mut self, ms: u64, server: usize, lsn: u64, timeline: u32) -> bool {
        self.seen(ms, server, observation(true, lsn, Some(timeline)))
    }

    fn failed(&mut self, ms: u64, server: usize, failure: Failure) -> bool {
        self.estimate.apply(server, self.at(ms), Report::Failed { failure, problem: "no answer".into() })
    }

    /// A letter for each server: primary, replica, or `-` for none.
    fn roles(&self) -> String {
        let letter = |it: &route::Server| match it.role {
            Some(Role::Primary) => 'P',
            Some(Role::Replica) => 'R',
            None => '-',
        };
        self.estimate.shard().servers.iter().map(letter).collect()
    }

    fn problem(&self, server: usize) -> String {
        self.estimate.shard().servers[server].problem.clone().unwrap_or_default()
    }

    /// After a look at `ms`: a letter for each server: in the set, returned to it, or `-` for outside.
    fn members(&mut self, ms: u64) -> String {
        self.estimate.settle(self.at(ms));
        let letter = |it: &route::Server| match it.joined {
            Some(joined) if joined.returned => 'R',
            Some(_) => 'I',
            None => '-',
        };
        self.estimate.shard().servers.iter().map(letter).collect()
    }

    fn lag_ms(&self, server: usize, now_ms: u64) -> Option<u128> {
        self.estimate.shard().servers[server].lag(self.at(now_ms)).map(|it| it.as_millis())
    }
}

fn observation(in_recovery: bool, lsn: u64, timeline: Option<u32>) -> Observation {
    let position = Some(Lsn(lsn));
    Observation {
        up_since: Instant::now(),
        in_recovery,
        objection: None,
        position,
        timeline,
        system_identifier: Some(SYSTEM),
    }
}

#[test]
fn lag_is_the_time_since_the_primary_passed_what_is_replayed() {
    let mut scene = Scene::settled();
    scene.primary(100, 0, 200, 1);
    scene.primary(200, 0, 300, 1);
    scene.standby(210, 1, 250, 1);
    assert_eq!(scene.lag_ms(1, 220), Some(120));
    assert_eq!(scene.estimate.shard().servers[1].lag_bytes, Some(50));
    assert_eq!(scene.lag_ms(0, 220), None, "a primary has no lag");
}

#[test]
fn an_idle_primary_leaves_no_lag() {
    let mut scene = Scene::settled();
    (100..60_000).step_by(100).for_each(|ms| {
        scene.primary(ms, 0, 100, 1);
    });
    assert_eq!(scene.lag_ms(1, 60_000), Some(100));
}

#[test]
fn lag_grows_while_replay_is_paused_and_ends_with_it() {
    let mut scene = Scene::settled();
    for ms in (100..=5_000).step_by(100) {
        scene.primary(ms, 0, 100 + ms, 1);
        scene.standby(ms, 1, 100, 1);
        assert_eq!(scene.lag_ms(1, ms), Some(u128::from(ms)));
    }
    scene.standby(5_050, 1, 5_100, 1);
    assert_eq!(scene.lag_ms(1, 5_050), Some(50));
}

#[test]
fn lag_grows_by_itself_when_the_primary_is_dead() {
    let mut scene = Scene::settled();
    scene.primary(1_000, 0, 200, 1);
    scene.standby(1_010, 1, 200, 1);
    assert!(scene.failed(1_100, 0, Failure::Lost));
    scene.standby(9_000, 1, 200, 1);
    assert_eq!((scene.roles().as_str(), scene.lag_ms(1, 9_000)), ("-RR", Some(8_000)));
}

#[test]
fn a_dead_replica_has_neither_role_nor_lag() {
    let mut scene = Scene::settled();
    assert!(scene.failed(100, 1, Failure::Lost));
    assert_eq!((scene.roles().as_str(), scene.lag_ms(1, 100)), ("P-R", None));
    assert_eq!(scene.problem(1), "no answer");
    assert!(scene.standby(200, 1, 100, 1));
    assert_eq!(scene.problem(1), "");
}

#[test]
fn a_pause_costs_a_role_at_the_second_failure_only() {
    let mut scene = Scene::settled();
    assert!(!scene.failed(1_000, 0, Failure::Silent));
    assert_eq!((scene.roles().as_str(), scene.problem(0).as_str()), ("PRR", "no answer"));
    scene.primary(1_100, 0, 100, 1);
    assert!(!scene.failed(2_000, 0, Failure::Unclear));
    assert!(scene.failed(3_000, 0, Failure::Unclear));
    assert_eq!(scene.roles(), "-RR");
}

#[test]
fn a_failed_probe_is_no_sample() {
    let mut scene = Scene::settled();
    scene.failed(1_000, 0, Failure::Unclear);
    assert_eq!(scene.lag_ms(1, 1_000), Some(1_000));
}

#[test]
fn answers_out_of_order_never_make_a_replica_fresher() {
    let mut scene = Scene::settled();
    scene.primary(300, 0, 300, 1);
    scene.primary(200, 0, 250, 1);
    scene.standby(310, 1, 260, 1);
    assert_eq!(scene.lag_ms(1, 310), Some(310), "the late sample is not used");
}

#[test]
fn a_replica_that_was_rebuilt_from_an_old_copy_is_as_stale_as_its_position() {
    let mut scene = Scene::settled();
    scene.primary(5_000, 0, 900, 1);
    scene.standby(5_000, 1, 900, 1);
    assert_eq!(scene.lag_ms(1, 5_000), Some(0));
    scene.standby(5_100, 1, 150, 1);
    assert_eq!(scene.lag_ms(1, 5_100), Some(5_100));
    scene.standby(5_200, 1, 50, 1);
    assert_eq!(scene.lag_ms(1, 5_200), None, "older than every sample");
}

#[test]
fn no_role_is_granted_before_every_server_was_asked() {
    let mut scene = Scene::new();
    scene.primary(0, 0, 900, 1);
    scene.standby(0, 2, 100, 2);
    assert_eq!(scene.roles(), "--R", "the answer of `b` is not in");
    scene.primary(10, 1, 150, 2);
    assert_eq!(scene.roles(), "-PR");
    assert!(scene.problem(0).contains("timeline 2 has been seen"), "{}", scene.problem(0));
}

#[test]
fn a_server_that_does_not_answer_does_not_hold_up_the_others() {
    let mut scene = Scene::new();
    scene.primary(0, 0, 100, 1);
    scene.failed(10, 1, Failure::Lost);
    assert!(scene.failed(20, 2, Failure::Unclear));
    assert_eq!(scene.roles(), "P--");
}

#[test]
fn a_promotion_moves_the_role_and_fences_the_old_primary() {
    let mut scene = Scene::settled();
    assert!(scene.primary(100, 1, 120, 2), "while `a` still answers");
    assert_eq!(scene.roles(), "-PR");
    scene.failed(200, 1, Failure::Lost);
    scene.primary(210, 0, 900, 1);
    assert_eq!(scene.roles(), "--R", "its successor is down, and it stays fenced");
    scene.primary(300, 1, 130, 2);
    scene.standby(400, 0, 130, 2);
    assert_eq!(scene.roles(), "RPR", "back as a standby of the new primary");
}

#[test]
fn positions_of_another_timeline_are_not_compared() {
    let mut scene = Scene::settled();
    scene.primary(1_000, 1, 120, 2);
    scene.standby(1_010, 2, 900, 1);
    assert_eq!((scene.roles().as_str(), scene.lag_ms(2, 1_010)), ("-PR", None));
    assert!(scene.problem(2).contains("not known to follow timeline 2"), "{}", scene.problem(2));
    scene.standby(1_100, 2, 120, 2);
    assert_eq!((scene.lag_ms(2, 1_110), scene.problem(2).as_str()), (Some(110), ""));
}

#[test]
fn a_standby_that_knows_a_newer_timeline_fences_the_old_primary() {
    let mut scene = Scene::settled();
    assert!(scene.standby(100, 2, 130, 2));
    assert_eq!(scene.roles(), "-RR");
}

#[test]
fn of_two_equal_claims_the_one_that_was_primary_stays() {
    let mut scene = Scene::settled();
    scene.primary(100, 1, 900, 1);
    assert_eq!(scene.roles(), "P-R");
    assert!(scene.problem(1).contains("no later timeline than a"), "{}", scene.problem(1));
    scene.failed(200, 0, Failure::Lost);
    assert_eq!(scene.roles(), "--R", "not granted on the word of a server that was fenced");
}

#[test]
fn equal_claims_at_start_are_both_fenced() {
    let mut scene = Scene::new();
    scene.primary(0, 0, 100, 1);
    scene.primary(0, 1, 200, 1);
    scene.standby(0, 2, 100, 1);
    assert_eq!(scene.roles(), "--R");
}

#[test]
fn a_server_of_another_system_is_fenced() {
    let mut scene = Scene::settled();
    let other =
        |in_recovery| Observation { system_identifier: Some(8), ..observation(in_recovery, 900, Some(5)) };
    scene.seen(100, 2, other(true));
    scene.seen(110, 1, other(false));
    assert_eq!(scene.roles(), "P--");
    assert!(scene.problem(1).contains("system identifier 8"), "{}", scene.problem(1));
    scene.primary(200, 0, 200, 1);
    assert_eq!(scene.roles(), "P--", "its timeline 5 says nothing about this system");
}

#[test]
fn without_timelines_a_primary_is_found_and_replicas_are_unfit() {
    let mut scene = Scene::new();
    let blind = |in_recovery| Observation { system_identifier: None, ..observation(in_recovery, 100, None) };
    scene.seen(0, 1, blind(true));
    scene.failed(0, 2, Failure::Lost);
    scene.seen(0, 0, blind(false));
    assert_eq!((scene.roles().as_str(), scene.lag_ms(1, 10)), ("PR-", None));
    assert!(scene.problem(1).contains("pg_control_checkpoint"), "{}", scene.problem(1));
}

#[test]
fn a_log_that_got_shorter_starts_the_samples_anew() {
    let mut scene = Scene::settled();
    scene.primary(1_000, 0, 900, 1);
    scene.primary(2_000, 0, 500, 1);
    scene.standby(2_010, 1, 450, 1);
    assert_eq!(scene.lag_ms(1, 2_010), None);
    scene.standby(2_020, 1, 500, 1);
    assert_eq!(scene.lag_ms(1, 2_020), Some(20));
}

#[test]
fn a_replica_that_lags_leaves_the_set_and_returns_when_it_is_near() {
    let mut scene = Scene::settled();
    assert_eq!(scene.members(10), "-II");
    for ms in (100..=1_500).step_by(100) {
        scene.primary(ms, 0, 100 + ms, 1);
        scene.standby(ms, 1, 100, 1);
        scene.standby(ms, 2, 100 + ms, 1);
        assert_eq!(scene.members(ms), if ms <= 1_000 { "-II" } else { "--I" }, "{ms}");
    }
    scene.standby(1_500, 1, 100 + 800, 1);
    assert_eq!((scene.members(1_500).as_str(), scene.lag_ms(1, 1_500)), ("--I", Some(700)));
    scene.standby(1_510, 1, 100 + 1_100, 1);
    assert_eq!((scene.members(1_510).as_str(), scene.lag_ms(1, 1_510)), ("-RI", Some(410)));
}

#[test]
fn who_is_no_replica_or_of_unknown_lag_is_outside_the_set() {
    let mut scene = Scene::settled();
    assert_eq!(scene.members(10), "-II");
    scene.failed(20, 1, Failure::Lost);
    scene.standby(20, 2, 50, 1);
    assert_eq!(scene.members(20), "---", "dead, and older than every sample");
    scene.standby(30, 1, 100, 1);
    scene.standby(30, 2, 100, 1);
    assert_eq!(scene.members(30), "-RR");
    scene.primary(40, 1, 120, 2);
    assert_eq!((scene.roles().as_str(), scene.members(40).as_str()), ("-PR", "---"), "a promotion");
}

#[test]
fn a_reload_keeps_who_is_in_the_set_and_who_has_left() {
    let mut scene = Scene::settled();
    scene.members(10);
    scene.primary(1_200, 0, 300, 1);
    scene.standby(1_200, 1, 100, 1);
    scene.standby(1_200, 2, 300, 1);
    assert_eq!(scene.members(1_200), "--R", "each was too old for a moment");
    scene.primary(1_900, 0, 400, 1);
    scene.standby(1_900, 1, 300, 1);
    scene.standby(1_900, 2, 400, 1);
    assert_eq!(reloaded(&scene, &["new", "a", "b", "c"]).members(1_900), "---R", "700 ms is not near enough");
}

#[test]
fn a_replica_is_asked_after_its_primary_and_soon_while_it_lacks_something() {
    let mut scene = Scene::settled();
    let pace = |scene: &Scene| [0, 1, 2].map(|it| scene.estimate.pace(it));
    assert_eq!(pace(&scene), [Pace::Usual; 3], "nobody has joined");
    assert_eq!(scene.estimate.followers().count(), 0);
    assert_eq!(scene.members(10), "-II");
    assert_eq!(pace(&scene), [Pace::Usual, Pace::Following, Pace::Following]);
    assert_eq!(scene.estimate.followers().collect::<Vec<_>>(), [1, 2]);
    scene.primary(100, 0, 200, 1);
    scene.standby(105, 1, 200, 1);
    scene.standby(105, 2, 150, 1);
    assert_eq!(pace(&scene), [Pace::Usual, Pace::Following, Pace::Soon]);
    scene.primary(1_200, 0, 300, 1);
    scene.standby(1_205, 1, 300, 1);
    assert_eq!(scene.members(1_205), "-R-");
    assert_eq!(pace(&scene), [Pace::Usual, Pace::Following, Pace::Usual], "nobody waits for one outside");
    scene.failed(1_300, 0, Failure::Lost);
    assert_eq!(pace(&scene), [Pace::Soon; 3], "anyone may be the next primary");
}

/// As `scene`, after a reload that leaves these servers.
fn reloaded(scene: &Scene, addresses: &[&str]) -> Scene {
    let addresses = addresses.iter().map(|it| String::from(*it)).collect();
    let mut estimate = Estimate::new(ShardId(0), "s1".into(), addresses, bounds());
    estimate.adopt(&scene.estimate);
    Scene { estimate, start: scene.start }
}

#[test]
fn servers_that_a_reload_leaves_keep_roles_and_lags() {
    let mut scene = Scene::settled();
    scene.primary(1_000, 0, 200, 1);
    scene.standby(1_000, 1, 200, 1);
    let mut after = reloaded(&scene, &["new", "b", "a"]);
    // The new one is not waited for.
    assert_eq!(after.roles(), "-RP");
    assert_eq!(after.lag_ms(1, 1_500), Some(500));
    after.standby(1_100, 0, 200, 1);
    assert_eq!(after.roles(), "RRP");
    // It cannot take the role without a promotion.
    after.primary(1_200, 0, 300, 1);
    assert_eq!(after.roles(), "-RP");
}

#[test]
fn a_primary_that_a_reload_removes_is_succeeded_by_a_promotion_alone() {
    let mut scene = Scene::settled();
    scene.primary(100, 0, 200, 2);
    let mut after = reloaded(&scene, &["b", "c"]);
    assert_eq!(after.roles(), "RR");
    after.primary(200, 0, 300, 1);
    assert!(after.roles().starts_with('-'), "timeline 2 has been seen");
    after.primary(300, 0, 300, 3);
    assert!(after.roles().starts_with('P'));
    // Other servers altogether are another system.
    assert_eq!(reloaded(&scene, &["x", "y"]).roles(), "--");
}

#[test]
fn what_is_known_of_a_name_that_has_moved_is_forgotten() {
    let mut scene = Scene::settled();
    assert_eq!(scene.members(50), "-II");
    assert!(scene.estimate.forget(1, scene.at(100)));
    assert_eq!(scene.roles(), "P-R");
    assert!(scene.problem(1).contains("another address"), "{}", scene.problem(1));
    assert_eq!(scene.members(100), "--I");
    // A probe that began before is of the server that the name stood for then.
    assert!(!scene.standby(99, 1, 100, 1) && !scene.failed(99, 1, Failure::Lost));
    assert_eq!(scene.roles(), "P-R");
    assert!(scene.standby(100, 1, 100, 1));
    assert_eq!((scene.roles().as_str(), scene.members(110).as_str()), ("PRR", "-RI"), "its caches are cold");

    assert!(scene.estimate.forget(0, scene.at(200)));
    assert_eq!(scene.roles(), "-RR");
    assert!(scene.primary(210, 0, 150, 2));
    assert_eq!(scene.roles(), "PRR", "the name has followed the role");
    assert!(scene.estimate.shard().servers[0].moved_at.is_some());
}

#[test]
fn a_claim_that_somebody_objects_to_does_not_stand() {
    let mut scene = Scene::settled();
    let objected = |timeline| Observation {
        objection: Some("patroni says no".into()),
        ..observation(false, 200, Some(timeline))
    };
    assert!(scene.seen(100, 0, objected(1)));
    assert_eq!((scene.roles().as_str(), scene.problem(0).as_str()), ("-RR", "fenced: patroni says no"));
    // A promotion that nobody has borne out yet: its timeline is out of reach for the old one all the same.
    assert!(scene.seen(200, 1, objected(2)));
    assert_eq!(scene.roles(), "--R");
    assert!(!scene.primary(300, 0, 200, 1));
    assert_eq!(scene.roles(), "--R");
    assert!(scene.primary(400, 1, 210, 2));
    assert_eq!(scene.roles(), "-PR");
    // Replicas need nobody to bear them out.
    scene.seen(500, 2, Observation { objection: Some("no".into()), ..observation(true, 210, Some(2)) });
    assert_eq!(scene.roles(), "-PR");
}

#[test]
fn a_replica_that_a_reload_adds_warms_up() {
    let mut scene = Scene::settled();
    assert_eq!(scene.members(10), "-II");
    let addresses = ["a", "b", "d"].map(String::from).to_vec();
    let mut after = Estimate::new(ShardId(0), "s1".into(), addresses, bounds());
    after.adopt(&scene.estimate);
    scene.estimate = after;
    assert_eq!((scene.members(20).as_str(), scene.roles().as_str()), ("-I-", "PR-"), "its lag is not known");
    scene.standby(30, 2, 100, 1);
    assert_eq!(scene.members(30), "-IR");

    // Where no server is known from before there is nobody else to read from.
    let mut anew = Estimate::new(ShardId(0), "s1".into(), vec!["x".into(), "y".into(), "z".into()], bounds());
    anew.adopt(&scene.estimate);
    scene.estimate = anew;
    scene.standby(40, 1, 100, 1);
    scene.standby(40, 2, 100, 1);
    scene.primary(40, 0, 100, 1);
    assert_eq!(scene.members(50), "-II");
}

#[test]
fn a_primary_is_known_to_be_replaced_before_its_successor_is_seen() {
    let mut scene = Scene::settled();
    scene.failed(100, 0, Failure::Lost);
    assert!(!scene.estimate.shard().is_replaced, "it may come back");
    assert!(scene.standby(200, 2, 150, 2), "that is news, though all roles are as they were");
    assert_eq!((scene.roles().as_str(), scene.estimate.shard().is_replaced), ("-RR", true));
    assert!(!scene.standby(300, 2, 150, 2));
    scene.primary(400, 0, 200, 1);
    assert_eq!((scene.roles().as_str(), scene.estimate.shard().is_replaced), ("-RR", true));
    scene.primary(500, 1, 160, 2);
    assert_eq!((scene.roles().as_str(), scene.estimate.shard().is_replaced), ("-PR", false));
}
