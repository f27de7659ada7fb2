use super::*;

const QUARTER: Duration = Duration::from_secs(15 * 60);
const MANY: std::ops::Range<u64> = 0..200;

#[test]
fn the_same_seed_gives_the_same_plan_and_another_one_another() {
    assert_eq!(Plan::new(7, QUARTER), Plan::new(7, QUARTER));
    assert_ne!(Plan::new(7, QUARTER).steps, Plan::new(8, QUARTER).steps);
}

#[test]
fn a_quarter_of_an_hour_has_every_fault_and_every_kind_of_process() {
    for seed in MANY {
        let plan = Plan::new(seed, QUARTER);
        let kinds = plan.kinds();
        for (kind, least) in [
            (FaultKind::Kill, 5),
            (FaultKind::Pause, 5),
            (FaultKind::Cut, 5),
            (FaultKind::OneWayCut, 5),
            (FaultKind::Delay, 5),
            (FaultKind::Loss, 1),
            (FaultKind::KafkaRestart, 1),
            (FaultKind::RollingRestart, 1),
        ] {
            assert!(kinds.get(&kind) >= Some(&least), "seed {seed}: {kind:?} {plan}");
        }
        for kind in [FaultKind::Kill, FaultKind::Pause] {
            assert_eq!(plan.victims(kind), ProcessKind::ALL, "seed {seed}: {kind:?} {plan}");
        }
    }
}

#[test]
fn three_minutes_have_what_counts_most() {
    for seed in MANY {
        let plan = Plan::new(seed, Duration::from_secs(3 * 60));
        let killed = plan.victims(FaultKind::Kill);
        for kind in ProcessKind::ALL.into_iter().filter(|kind| kind.is_service()) {
            let alike = killed.iter().any(|k| k.group() == kind.group());
            assert!(alike, "seed {seed}: no {} is killed: {plan}", kind.group());
        }
        let paused = plan.victims(FaultKind::Pause);
        let both = [ProcessKind::Delivery, ProcessKind::Generator];
        assert!(both.iter().all(|kind| paused.contains(kind)), "seed {seed}: {plan}");
        assert!(plan.kinds().contains_key(&FaultKind::Cut), "seed {seed}: {plan}");
    }
}

#[test]
fn at_most_two_go_on_at_once_and_none_beside_one_that_forbids_it() {
    for seed in MANY {
        for length in [60, 180, 900, 3600].map(Duration::from_secs) {
            let plan = Plan::new(seed, length);
            let mut before = Duration::ZERO;
            for (n, step) in plan.steps.iter().enumerate() {
                assert!(before <= step.at, "seed {seed}: in order");
                before = step.at;
                let healed = step.at + step.action.length();
                assert!(healed < length, "seed {seed}: {step:?} is healed after the end");
                let goes_on = |s: &&Step| step.at < s.at + s.action.length();
                let beside: Vec<_> = plan.steps[..n].iter().filter(goes_on).collect();
                assert!(beside.len() < 2, "seed {seed}: {step:?} and {beside:?}");
                let may = beside.iter().all(|s| s.action.may_overlap(&step.action));
                assert!(may, "seed {seed}: {step:?} and {beside:?}");
            }
        }
    }
}

#[test]
fn two_brokers_two_nodes_or_two_of_a_service_never_go_together() {
    let kill = |kind| Action::Kill { victim: Victim { kind, pick: 0 }, down: Duration::ZERO };
    let pause = |kind| Action::Pause { victim: Victim { kind, pick: 1 }, lasts: SESSION };
    for (one, other) in [
        (ProcessKind::KafkaLeader, ProcessKind::KafkaFollower),
        (ProcessKind::ZookeeperFollower, ProcessKind::ZookeeperFollower),
        (ProcessKind::Delivery, ProcessKind::Delivery),
    ] {
        assert!(!kill(one).may_overlap(&pause(other)), "{one:?} {other:?}");
    }
    assert!(kill(ProcessKind::Delivery).may_overlap(&pause(ProcessKind::KafkaLeader)));
    let all = Action::KafkaRestart { down: Duration::ZERO };
    assert!(!all.may_overlap(&kill(ProcessKind::Sender)));
    assert!(!kill(ProcessKind::Sender).may_overlap(&all));
}

#[test]
fn a_pause_is_longer_than_a_session_and_a_delay_delays() {
    for step in &Plan::new(3, QUARTER).steps {
        match &step.action {
            Action::Pause { lasts, .. } => assert!(*lasts >= SESSION + Duration::from_secs(2)),
            Action::Link { kind: FaultKind::Delay, by, .. } => {
                assert!((50..=300).contains(&by.as_millis()));
            }
            _ => {}
        }
    }
}
