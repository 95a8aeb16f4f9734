use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

fn party(realm: i32, key: u128, kind: &str) -> Option<Party> {
    Some(Party {
        realm,
        key: Uuid::from_u128(key),
        kind: kind.into(),
        streams: false,
        heavy: false,
    })
}

fn pool(total: usize) -> State<u32> {
    State::new(Rules::of_pool(total, None, None, 1000))
}

/// Takes as many turns as there are for this party.
fn all(state: &mut State<u32>, requester: &Option<Party>, now: Instant) -> Vec<Grant> {
    let mut grants = Vec::new();
    while let Entry::Granted(grant) = state.enter(requester.clone(), 0, now).unwrap() {
        grants.push(grant);
    }
    let ticket = state.clock;
    state.leave(ticket);
    grants
}

/// Has this party do quick work for a while.
fn warm(state: &mut State<u32>, requester: &Option<Party>, now: Instant) {
    for _ in 0..20 {
        let Entry::Granted(grant) = state.enter(requester.clone(), 0, now).unwrap() else {
            panic!("a turn is free")
        };
        state.release(grant, now + MILLISECOND);
    }
}

#[test]
fn a_kind_begins_with_few_turns_and_gets_more_as_it_is_quick() {
    let (mut state, now) = (pool(10), Instant::now());
    let requester = party(1, 1, "get");
    let grants = all(&mut state, &requester, now);
    assert_eq!(grants.len(), 3);
    grants.into_iter().for_each(|grant| state.release(grant, now));
    warm(&mut state, &requester, now);
    assert_eq!(all(&mut state, &requester, now).len(), 7);
    assert_eq!(state.waiting(), 0);
}

#[test]
fn of_what_computes_for_long_a_realm_has_little_as_long_as_others_call_too() {
    let (mut state, now) =
        (State::new(Rules { heavy: 1, ..Rules::of_pool(10, None, None, 1000) }), Instant::now());
    let (light, other) = (party(1, 1, "get"), party(2, 2, "get"));
    let heavy = light.clone().map(|party| Party { heavy: true, ..party });
    warm(&mut state, &light, now);
    let alone = all(&mut state, &heavy, now);
    assert_eq!(alone.len(), 7, "it is alone");
    alone.into_iter().for_each(|grant| state.undo(grant));
    warm(&mut state, &other, now);
    let first = all(&mut state, &heavy, now);
    assert_eq!(first.len(), 1);
    let lights = all(&mut state, &light, now);
    assert!(!lights.is_empty(), "its light work passes");
    lights.into_iter().for_each(|grant| state.undo(grant));
    let later = now + OTHERS * 2;
    assert!(!all(&mut state, &heavy, later).is_empty(), "others call no longer");
}

#[test]
fn while_work_begins_late_a_realm_has_few_turns_as_long_as_others_call_too() {
    let (mut state, now) = (pool(10), Instant::now());
    let (requester, other) = (party(1, 1, "get"), party(2, 2, "get"));
    warm(&mut state, &requester, now);
    for late in [LATE * 2, Duration::ZERO] {
        for _ in 0..200 {
            let Entry::Granted(mut grant) = state.enter(requester.clone(), 0, now).unwrap() else {
                panic!("a turn is free")
            };
            grant.begin(now + late);
            state.release(grant, now + MILLISECOND);
        }
        let alone = now + OTHERS * 10;
        let grants = all(&mut state, &requester, alone);
        assert_eq!(grants.len(), 7, "it is alone");
        grants.into_iter().for_each(|grant| state.undo(grant));
        all(&mut state, &other, alone).into_iter().for_each(|grant| state.undo(grant));
        let grants = all(&mut state, &requester, alone);
        assert_eq!(grants.len(), if late > LATE { 2 } else { 7 });
        grants.into_iter().for_each(|grant| state.undo(grant));
    }
}

#[test]
fn a_kind_that_takes_long_falls_back_and_the_others_of_its_realm_do_not() {
    let (mut state, now) = (pool(10), Instant::now());
    let (list, get) = (party(1, 1, "list"), party(1, 1, "get"));
    warm(&mut state, &list, now);
    warm(&mut state, &get, now);
    let lists = all(&mut state, &list, now);
    assert_eq!(lists.len(), 7, "nobody knows yet");
    let later = now + Duration::from_secs(1);
    assert_eq!(all(&mut state, &get, later).len(), 0, "the realm has its share");
    lists.into_iter().for_each(|grant| state.release(grant, later));
    let lists = all(&mut state, &list, later);
    assert_eq!(lists.len(), 3);
    assert_eq!(all(&mut state, &get, later).len(), 4);
}

#[test]
fn slow_work_of_many_realms_leaves_half_of_the_pool_and_quick_work_the_last_connection() {
    let (mut state, now) = (pool(10), Instant::now());
    let mut grants = Vec::new();
    for realm in 1..20 {
        let requester = party(realm, 1, "list");
        let Ok(Entry::Granted(grant)) = state.enter(requester, 0, now) else {
            panic!("a turn is free")
        };
        state.release(grant, now + Duration::from_secs(1));
    }
    let now = now + Duration::from_secs(1);
    for realm in 1..20 {
        grants.extend(all(&mut state, &party(realm, 1, "list"), now));
    }
    assert_eq!(grants.len(), 5);
    for realm in 21..40 {
        grants.extend(all(&mut state, &party(realm, 1, "unknown"), now));
    }
    assert_eq!((grants.len(), state.free), (9, 1));
    let quick = party(50, 1, "get");
    let Entry::Waits(..) = state.enter(quick.clone(), 0, now).unwrap() else {
        panic!("not known to be quick")
    };
    state.release(grants.pop().unwrap(), now);
    let (_, grant) = state.next(now).expect("one waits");
    state.release(grant, now + MILLISECOND);
    for _ in 0..2 {
        let Entry::Granted(grant) = state.enter(quick.clone(), 0, now).unwrap() else {
            panic!("two are free")
        };
        state.release(grant, now + MILLISECOND);
    }
    grants.extend(all(&mut state, &party(60, 1, "unknown"), now));
    assert_eq!(state.free, 1);
    assert!(matches!(state.enter(quick, 0, now).unwrap(), Entry::Granted(_)));
}

#[test]
fn where_all_work_takes_a_while_none_of_it_falls_back() {
    let (mut state, mut now) = (pool(10), Instant::now());
    let requester = party(1, 1, "get");
    for _ in 0..100 {
        let Entry::Granted(grant) = state.enter(requester.clone(), 0, now).unwrap() else {
            panic!("a turn is free")
        };
        now += MILLISECOND * 400;
        state.release(grant, now);
    }
    assert_eq!(all(&mut state, &requester, now).len(), 7);
    now += MILLISECOND * 300;
    let other = party(2, 2, "get");
    assert_eq!(all(&mut state, &other, now).len(), 2, "as much as is left for it");
}

#[test]
fn a_few_that_take_very_long_do_not_make_that_usual() {
    let (mut state, mut now) = (pool(10), Instant::now());
    let (list, get) = (party(1, 1, "list"), party(2, 1, "get"));
    for _ in 0..20 {
        let Entry::Granted(grant) = state.enter(list.clone(), 0, now).unwrap() else {
            panic!("a turn is free")
        };
        now += Duration::from_secs(60);
        state.release(grant, now);
        (0..50).for_each(|_| warm(&mut state, &get, now));
    }
    assert!(state.long() < Duration::from_secs(1), "{:?}", state.long());
    assert_eq!(all(&mut state, &list, now).len(), state.rules.slow);
}

#[test]
fn the_realm_that_has_fewer_goes_first_and_then_the_one_that_had_less() {
    let (mut state, now) = (pool(4), Instant::now());
    let service: Vec<_> = all(&mut state, &None, now);
    assert_eq!(service.len(), 3, "one is left for calls");
    let Entry::Granted(last) = state.enter(party(1, 1, "a"), 0, now).unwrap() else {
        panic!("one is free")
    };
    for (realm, waiter) in [(1, 10), (2, 20), (1, 11), (3, 30)] {
        assert!(matches!(
            state.enter(party(realm, 1, "b"), waiter, now).unwrap(),
            Entry::Waits(..)
        ));
    }
    let mut order = Vec::new();
    let mut grants = VecDeque::from([last]);
    let mut at = now;
    while let Some(grant) = grants.pop_front() {
        at += MILLISECOND * 10;
        state.release(grant, at);
        while let Some((waiter, grant)) = state.next(at) {
            order.push(waiter);
            grants.push_back(grant);
        }
    }
    assert_eq!(order, [20, 30, 10, 11]);
    drop(service);
}

#[test]
fn within_a_realm_a_key_with_many_calls_does_not_keep_another_waiting() {
    let (mut state, now) = (pool(2), Instant::now());
    let Entry::Granted(first) = state.enter(party(1, 1, "a"), 0, now).unwrap() else {
        panic!("both are free")
    };
    for (key, waiter) in [(1, 10), (1, 11), (1, 12), (2, 20)] {
        assert!(matches!(state.enter(party(1, key, "a"), waiter, now).unwrap(), Entry::Waits(..)));
    }
    let mut order = Vec::new();
    let mut grant = Some(first);
    while let Some(grants) = grant.take() {
        state.release(grants, now + MILLISECOND);
        if let Some((waiter, next)) = state.next(now + MILLISECOND) {
            order.push(waiter);
            grant = Some(next);
        }
    }
    assert_eq!(
        order.iter().position(|waiter| *waiter == 20),
        Some(1),
        "after one of the other's, not after all: {order:?}"
    );
}

#[test]
fn however_many_realms_come_and_go_few_are_remembered() {
    let (mut state, now) = (pool(10), Instant::now());
    for realm in 0..50_000 {
        let Ok(Entry::Granted(grant)) = state.enter(party(realm, 1, "get"), 0, now) else {
            panic!("a turn is free")
        };
        state.release(grant, now + MILLISECOND);
    }
    assert!(state.realms.len() <= MANY, "{}", state.realms.len());
}

proptest! {
    /// Whatever is asked for in whatever order: nobody waits for a free turn, and at the end nothing is left behind.
    #[test]
    fn turns_are_never_lost_nor_given_twice(
        total in 1_usize..12,
        steps in prop::collection::vec((0_u8..4, 0_i32..4, 0_u128..2, 0_u64..400), 1..200),
    ) {
        let (mut state, mut now) = (pool(total), Instant::now());
        let mut grants = Vec::new();
        let mut tickets = Vec::new();
        for (action, realm, key, millis) in steps {
            now += Duration::from_millis(millis);
            match action {
                0 | 1 => {
                    let requester = if realm == 0 { None } else { party(realm, key, if key == 0 { "a" } else { "b" }) };
                    match state.enter(requester, 0, now) {
                        Ok(Entry::Granted(grant)) => grants.push(grant),
                        Ok(Entry::Waits(ticket, _)) => tickets.push(ticket),
                        Err(refused) => prop_assert!(false, "{:?}", refused),
                    }
                }
                2 if !tickets.is_empty() => state.leave(tickets.swap_remove(millis as usize % tickets.len())),
                _ if !grants.is_empty() => {
                    let grant = grants.swap_remove(millis as usize % grants.len());
                    state.release(grant, now);
                    while let Some((_, grant)) = state.next(now) {
                        grants.push(grant);
                    }
                }
                _ => {}
            }
            prop_assert_eq!(state.free + grants.len(), total);
        }
        while let Some(grant) = grants.pop() {
            state.release(grant, now);
            while let Some((_, grant)) = state.next(now) {
                grants.push(grant);
            }
        }
        prop_assert_eq!((state.free, state.waiting, state.slow_held, state.queued.len()), (total, 0, 0, 0));
        prop_assert!(state.realms.values().all(|realm| realm.in_use == 0 && realm.queues.is_empty() && realm.keys.is_empty()));
    }
}
