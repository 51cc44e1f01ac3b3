//! The journal as its users see it, on disks that fail, fill up and lose what was not synced.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::FutureExt as _;
use proptest::prelude::*;
use uuid::Uuid;

use super::keep::{name_of, sequence_of};
use super::testing::{MemoryDisk, in_memory, on, options};
use super::*;
use crate::domain::call::{CacheStatus, Dialect, ErrorClass, Operation};
use crate::domain::ids::OrganizationId;
use crate::domain::record::{AttemptRecord, Charge, Metering, Owner};
use crate::domain::usage::{TokenUsage, UsageSource};

/// How long anything in the background may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The key of every tenth record.
pub(super) fn key(number: usize) -> KeyId {
    KeyId(Uuid::from_u128(number as u128 % 10))
}

/// A record that cost as many nano-dollars as its number says.
pub(super) fn record(number: usize) -> UsageRecord {
    UsageRecord {
        id: RequestId(Uuid::now_v7()),
        owner: Owner {
            organization: OrganizationId(Uuid::from_u128(7)),
            team: None,
            key: key(number),
        },
        admitted_at: Utc::now(),
        operation: Operation::Chat,
        dialect: Dialect::OpenAi,
        requested_model: format!("model-{number}"),
        stream: false,
        status: 200,
        error: None,
        client_cancelled: false,
        latency: Duration::from_millis(3),
        first_token: None,
        overhead: Duration::ZERO,
        cache: CacheStatus::Bypass,
        cached_from: None,
        attempts: vec![attempt(number)],
        routing: None,
        trace: None,
    }
}

fn attempt(number: usize) -> AttemptRecord {
    AttemptRecord {
        deployment: "openai/gpt".into(),
        provider: "openai".into(),
        model: "gpt".into(),
        started_after: Duration::ZERO,
        latency: Duration::from_millis(2),
        first_token: None,
        status: Some(200),
        error: None,
        upstream_request_id: Some("req-1".into()),
        charge: Charge {
            usage: TokenUsage {
                input: 10,
                ..TokenUsage::default()
            },
            source: UsageSource::Estimated,
            cost: Some(NanoUsd(i64::try_from(number).unwrap())),
            price_version: Some("list#1".into()),
        },
    }
}

pub(super) fn slot(journal: &Arc<Journal>) -> Slot {
    let since = Instant::now();
    loop {
        // Segments are prepared in the background.
        if let Some(slot) = journal.admit() {
            return slot;
        }
        assert!(since.elapsed() < PATIENCE, "there is no room: {:?}", journal.degraded());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn complete(journal: &Arc<Journal>, numbers: impl Iterator<Item = usize>) {
    for number in numbers {
        let record = record(number);
        let slot = slot(journal);
        let _ = slot.open(&record);
        let _ = slot.complete(record);
    }
}

fn numbers_of(batch: Batch<'_>) -> Vec<usize> {
    let numbers = batch.records().iter().map(number_of).collect();
    batch.commit();
    numbers
}

fn number_of(record: &UsageRecord) -> usize {
    record.requested_model["model-".len()..].parse().unwrap()
}

/// Takes everything out, in batches of so many.
async fn drain(journal: &Arc<Journal>, max: usize) -> Vec<UsageRecord> {
    let mut records = Vec::new();
    while let Some(batch) = journal.batch(max).await {
        records.extend_from_slice(batch.records());
        batch.commit();
    }
    records
}

async fn numbers(journal: &Arc<Journal>, max: usize) -> Vec<usize> {
    drain(journal, max).await.iter().map(number_of).collect()
}

/// Waits until something holds.
fn until(what: &str, holds: impl Fn() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn safe(journal: &Journal) {
    let ticket = journal.head.lock().ticket;
    until("everything is synced", || journal.is_safe(ticket));
}

fn segments(disk: &MemoryDisk) -> Vec<u64> {
    super::disk::Disk::names(disk)
        .unwrap()
        .iter()
        .filter_map(|name| sequence_of(name))
        .collect()
}

#[tokio::test]
async fn records_come_out_in_order_and_go_back_to_where_they_were() {
    let journal = in_memory(100);
    complete(&journal, 0..10);
    drop(journal.batch(4).await.unwrap());
    let first = journal.batch(3).await.unwrap();
    assert_eq!(first.records().iter().map(number_of).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((journal.depth(), journal.used()), (7, 10));
    first.commit();
    assert_eq!(journal.used(), 7);
    assert_eq!(numbers(&journal, 4).await, (3..10).collect::<Vec<_>>());
    assert_eq!((journal.depth(), journal.used()), (0, 0));
    journal.close();
}

#[tokio::test]
async fn a_full_journal_gives_no_slot_and_a_dropped_slot_gives_its_place_back() {
    let journal = in_memory(2);
    let (one, two) = (slot(&journal), slot(&journal));
    assert!(journal.admit().is_none());
    drop(one);
    let _ = two.complete(record(1));
    let _three = slot(&journal);
    assert!(journal.admit().is_none());
    assert_eq!(
        journal.degraded(),
        ["it has journal.max_records records; requests are refused"]
    );
}

#[tokio::test]
async fn more_records_than_memory_takes_wait_on_the_disk_in_order() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(100_000), 16);
    complete(&journal, 0..5_000);
    {
        let head = journal.head.lock();
        assert_eq!((head.window.len(), head.spill.count), (16, 4_984));
        assert!(head.segments.len() > 1, "more than one segment is read");
    }
    let expected: i64 = (0..5_000).filter(|number| number % 10 == 3).sum();
    let outstanding = journal.outstanding(key(3));
    let known: i64 = outstanding
        .records
        .iter()
        .filter_map(|(_, cost)| *cost)
        .map(|cost| cost.0)
        .sum();
    assert_eq!(known + outstanding.spilled.0, expected);

    // Half of them, then more come, and a batch goes back.
    let mut seen = Vec::new();
    while seen.len() < 2_500 {
        let batch = journal.batch(100).await.unwrap();
        seen.extend(batch.records().iter().map(number_of));
        batch.commit();
    }
    complete(&journal, 5_000..6_000);
    drop(journal.batch(100).await.unwrap());
    seen.extend(numbers(&journal, 77).await);
    assert_eq!(seen, (0..6_000).collect::<Vec<_>>());
    assert_eq!((journal.depth(), journal.used()), (0, 0));
    let outstanding = journal.outstanding(key(3));
    assert_eq!((outstanding.records.len(), outstanding.spilled), (0, NanoUsd::ZERO));
    journal.close();
    assert_eq!(segments(&disk), [0_u64; 0], "an orderly end leaves nothing behind");
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_for_a_while_loses_nothing() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(100_000), 16);
    complete(&journal, 0..2_000);
    let mut seen = numbers_of(journal.batch(16).await.unwrap());
    disk.faults.reads.store(true, Ordering::Release);
    for _ in 0..20 {
        assert!(journal.batch(100).await.is_none());
    }
    assert_eq!(journal.depth(), 1_984);
    disk.faults.reads.store(false, Ordering::Release);
    seen.extend(numbers(&journal, 100).await);
    assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
    journal.close();
    assert_eq!(disk.names().unwrap(), [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_read_at_all_is_given_up_at_last_and_its_file_is_kept() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(100_000), 16);
    complete(&journal, 0..200);
    let mut seen = numbers_of(journal.batch(16).await.unwrap());
    disk.faults.reads.store(true, Ordering::Release);
    while journal.depth() > 0 {
        assert!(journal.batch(100).await.is_none());
    }
    disk.faults.reads.store(false, Ordering::Release);
    complete(&journal, 200..5_000);
    seen.extend(numbers(&journal, 100).await);
    assert_eq!(seen, (0..16).chain(200..5_000).collect::<Vec<_>>());
    until("the damaged segment is out of the way", || {
        let names = disk.names().unwrap();
        names.iter().any(|name| name.ends_with(".damaged"))
    });
    journal.close();
}

#[tokio::test]
async fn a_killed_process_leaves_its_records_and_its_requests_under_way() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(1_000), 16);
    complete(&journal, 0..50);
    assert_eq!(journal.batch(16).await.map(Batch::commit), Some(()));
    // One that no provider has heard of, one that a provider has, one that ended while its provider was told.
    let quiet = UsageRecord {
        attempts: Vec::new(),
        ..record(50)
    };
    let (quiet_slot, sent_slot, late_slot) = (slot(&journal), slot(&journal), slot(&journal));
    let _ = quiet_slot.open(&quiet);
    let sent = record(51);
    let _ = sent_slot.open(&UsageRecord {
        attempts: Vec::new(),
        ..sent.clone()
    });
    let in_flight = AttemptRecord {
        status: None,
        ..attempt(51)
    };
    let update = sent_slot.update(&UsageRecord {
        attempts: vec![in_flight],
        ..sent.clone()
    });
    update.unwrap().write();
    let late = record(52);
    let _ = late_slot.open(&late);
    let update = late_slot.update(&late).unwrap();
    let _ = late_slot.complete(late.clone());
    update.write();
    journal.flush_after_others();

    let mut disk = disk.after_a_kill();
    for kill in 0..3 {
        // However often it is killed at its start, nothing is doubled.
        let again = on(&disk, options(1_000), 16);
        assert_eq!(again.depth(), 37, "kill {kill}");
        again.flush_after_others();
        disk = disk.after_a_kill();
    }
    let again = on(&disk, options(1_000), 16);
    let records = drain(&again, 10).await;
    let numbers: Vec<_> = records.iter().map(number_of).collect();
    assert_eq!(&numbers[..34], (16..50).collect::<Vec<_>>());
    let find = |id| records.iter().find(|record| record.id == id).unwrap();
    for (id, attempts, cost) in [(quiet.id, 0, 0), (sent.id, 1, 51)] {
        let record = find(id);
        assert_eq!((record.status, record.error), (500, Some(ErrorClass::Interrupted)));
        assert_eq!(record.attempts.len(), attempts);
        assert_eq!(
            (record.cost(), record.metering()),
            (Some(NanoUsd(cost)), Metering::Estimated)
        );
    }
    assert_eq!(find(sent.id).attempts[0].error, Some(ErrorClass::Interrupted));
    assert_eq!(find(late.id).error, None);
    assert_eq!((again.used(), again.depth()), (0, 0));
    drop((quiet_slot, sent_slot));
    again.close();
    assert_eq!(segments(&disk), [0_u64; 0]);
}

/// Whatever was synced is there after the machine died, and the sums are right.
#[tokio::test]
async fn a_dead_machine_loses_only_what_was_not_synced() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(10_000), 16);
    complete(&journal, 0..3_000);
    safe(&journal);
    disk.faults.syncs.store(true, Ordering::Release);
    complete(&journal, 3_000..3_010);
    let again = on(&disk.after_a_crash(), options(10_000), 16);
    let found = numbers(&again, 500).await;
    assert_eq!(&found[..3_000], (0..3_000).collect::<Vec<_>>());
    assert!(found.len() <= 3_010);
    disk.faults.syncs.store(false, Ordering::Release);
}

#[tokio::test]
async fn a_disk_that_takes_no_write_refuses_new_requests_and_loses_none() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(1_000), 16);
    let under_way = [slot(&journal), slot(&journal)];
    disk.faults.writes.store(true, Ordering::Release);
    for (number, slot) in under_way.into_iter().enumerate() {
        let written = slot.complete(record(number)).unwrap();
        tokio::time::timeout(PATIENCE, written.reached())
            .await
            .expect("nobody waits for a disk that fails");
    }
    assert!(journal.admit().is_none());
    // A segment may have been made ready at the same moment; that it could not be is said as well.
    let reasons = journal.degraded();
    assert!(
        reasons.contains(&"it cannot be written; requests are refused"),
        "{reasons:?}"
    );
    disk.faults.writes.store(false, Ordering::Release);
    until("it recovers by itself", || journal.admit().is_some());
    until("nothing is wrong any more", || journal.degraded().is_empty());
    journal.flush_after_others();
    let again = on(&disk.after_a_kill(), options(1_000), 16);
    assert_eq!(numbers(&again, 10).await, [0, 1]);
}

#[tokio::test]
async fn after_a_sync_that_failed_nothing_is_let_in_until_everything_is_safe() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(1_000), 16);
    complete(&journal, 0..5);
    safe(&journal);
    let before = slot(&journal);
    disk.faults.syncs.store(true, Ordering::Release);
    let _ = before.complete(record(5));
    until("the failure is noticed", || journal.admit().is_none());
    // A segment may have been made ready at the same moment; that it could not be is said as well.
    let reasons = journal.degraded();
    assert!(
        reasons.contains(&"it cannot be synced; requests are refused"),
        "{reasons:?}"
    );
    // Further tries fail too, and the disk takes every page for clean.
    let tries = disk.faults.synced.load(Ordering::Acquire);
    until("it is tried again", || {
        disk.faults.synced.load(Ordering::Acquire) > tries + 1
    });
    disk.faults.syncs.store(false, Ordering::Release);
    until("it recovers by itself", || journal.admit().is_some());
    let again = on(&disk.after_a_crash(), options(1_000), 16);
    assert_eq!(
        numbers(&again, 10).await,
        [0, 1, 2, 3, 4, 5],
        "the bytes were written again"
    );
}

#[tokio::test]
async fn with_sync_by_record_nobody_hears_before_the_disk_has_it() {
    let disk = MemoryDisk::default();
    let by_record = JournalOptions {
        sync: SyncMode::Record,
        ..options(1_000)
    };
    let journal = on(&disk, by_record, 16);
    for number in 0..50 {
        let record = record(number);
        let slot = slot(&journal);
        let opened = slot.open(&record).unwrap();
        opened.reached().await;
        let ids = |disk: &MemoryDisk| {
            let bytes = disk.bytes_of(&name_of(1));
            bytes.windows(16).any(|window| window == record.id.0.as_bytes())
        };
        assert!(ids(&disk.after_a_crash()), "the intent is safe");
        let written = slot.complete(record.clone()).unwrap();
        written.reached().await;
        assert!(written.is_reached());
        let again = super::replay::tests_only_done(&disk.after_a_crash());
        assert_eq!(again, number + 1);
    }
    journal.close();
}

#[tokio::test]
async fn without_sync_the_disk_is_never_asked_for_one() {
    let disk = MemoryDisk::default();
    let off = JournalOptions {
        sync: SyncMode::Off,
        ..options(100_000)
    };
    let journal = on(&disk, off, 16);
    complete(&journal, 0..5_000);
    assert_eq!(numbers(&journal, 500).await.len(), 5_000);
    until("segments go all the same", || segments(&disk).len() < 5);
    journal.close();
    assert_eq!(disk.faults.synced.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn what_is_handed_in_during_one_turn_of_a_runtime_is_written_at_once() {
    let disk = MemoryDisk::default();
    // The threads of the journal's own have nothing to do meanwhile.
    let patient = JournalOptions {
        sync_interval: Duration::from_secs(60),
        ..options(100_000)
    };
    let journal = on(&disk, patient, 1_000);
    until("there is room for all of them", || journal.degraded().is_empty());
    let slots: Vec<_> = (0..100).map(|number| (record(number), slot(&journal))).collect();
    until("the segments are ready", || {
        let before = disk.faults.written.load(Ordering::Acquire);
        std::thread::sleep(Duration::from_millis(50));
        before == disk.faults.written.load(Ordering::Acquire)
    });
    let before = disk.faults.written.load(Ordering::Acquire);
    let mut written = Vec::new();
    for (record, slot) in slots {
        let _ = slot.open(&record);
        slot.update(&record).unwrap().write();
        written.extend(slot.complete(record));
    }
    assert!(written.iter().all(|written| !written.is_reached()));
    for written in &written {
        written.reached().await;
        assert!(written.is_reached());
    }
    assert_eq!(disk.faults.written.load(Ordering::Acquire), before + 1);
    assert_eq!(numbers(&journal, 500).await.len(), 100);
    journal.close();
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_when_there_is_space() {
    let disk = MemoryDisk::default();
    disk.faults.capacity.store(5 << 20, Ordering::Release);
    let journal = on(&disk, options(100_000), 16);
    let mut taken = 0;
    while let Some(slot) = journal.admit() {
        let record = record(taken);
        let _ = slot.open(&record);
        let written = slot.complete(record).unwrap();
        written.reached().await;
        assert!(written.is_reached(), "what is let in has its place");
        taken += 1;
        assert!(taken < 100_000);
    }
    // Whatever else the machine does, one of them shows how long it takes.
    let refusal = || {
        let asked = Instant::now();
        assert!(journal.admit().is_none());
        asked.elapsed()
    };
    assert!((0..20).map(|_| refusal()).min().unwrap() < Duration::from_millis(10));
    assert!(taken > 1_000);
    let full = "it is full; requests are refused";
    until("it says so", || journal.degraded() == [full]);
    let freed = Instant::now();
    disk.faults.capacity.store(u64::MAX, Ordering::Release);
    until("it recovers by itself", || journal.admit().is_some());
    assert!(freed.elapsed() < Duration::from_secs(5));
    assert_eq!(numbers(&journal, 500).await, (0..taken).collect::<Vec<_>>());
    journal.close();
}

#[tokio::test]
async fn a_process_that_starts_on_a_full_disk_makes_room_by_writing_what_is_there() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(100_000), 16);
    complete(&journal, 0..6_000);
    let under_way = slot(&journal);
    let _ = under_way.open(&record(6_000));
    journal.flush_after_others();
    let full = disk.after_a_kill();
    // Not even its own files have room to grow.
    full.faults.capacity.store(0, Ordering::Release);
    let again = on(&full, options(100_000), 16);
    assert!(again.admit().is_none());
    assert_eq!(again.depth(), 6_001);
    // The record of the request that was under way could not be written yet.
    let written = numbers(&again, 500).await;
    assert!(written == (0..6_000).collect::<Vec<_>>(), "{} came out", written.len());
    // Its file is ready to be used again, or gone.
    until("what was written goes", || again.head.lock().segments.len() == 1);
    full.faults.capacity.store(64 << 20, Ordering::Release);
    until("it recovers by itself", || again.admit().is_some());
    assert_eq!(numbers(&again, 500).await, [6_000]);
    again.close();
    assert_eq!(segments(&full), [0_u64; 0]);
}

#[tokio::test]
async fn a_directory_that_may_not_be_written_is_like_a_full_one() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(100_000), 16);
    disk.faults.creation.store(true, Ordering::Release);
    let mut taken = 0;
    while let Some(slot) = journal.admit() {
        let _ = slot.complete(record(taken));
        taken += 1;
        assert!(taken < 100_000);
    }
    disk.faults.creation.store(false, Ordering::Release);
    until("it recovers by itself", || journal.admit().is_some());
    assert_eq!(numbers(&journal, 500).await.len(), taken);
}

#[tokio::test]
async fn its_bytes_are_bounded_and_room_comes_back_when_records_are_written() {
    let disk = MemoryDisk::default();
    let small = JournalOptions {
        max_bytes: 4 << 20,
        ..options(1_000_000)
    };
    let journal = on(&disk, small, 16);
    let mut taken = 0;
    let mut refused_since = None;
    // Segments are prepared while it goes on, so one refusal is not the end.
    while refused_since.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(500)) {
        let Some(slot) = journal.admit() else {
            refused_since.get_or_insert_with(Instant::now);
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        refused_since = None;
        let record = record(taken);
        let _ = slot.open(&record);
        let _ = slot.complete(record);
        taken += 1;
    }
    assert!(
        journal.bytes() <= 4 << 20 && journal.bytes() > 3 << 20,
        "{}",
        journal.bytes()
    );
    assert_eq!(numbers(&journal, 500).await.len(), taken);
    until("room comes back", || journal.admit().is_some());
    until("segments go", || journal.bytes() < 1 << 20);
}

#[tokio::test]
async fn a_request_that_takes_for_ever_does_not_keep_old_segments() {
    let disk = MemoryDisk::default();
    let small = JournalOptions {
        max_bytes: 4 << 20,
        ..options(1_000_000)
    };
    let journal = on(&disk, small, 16);
    let slow = record(1_000_000);
    let slow_slot = slot(&journal);
    let _ = slow_slot.open(&slow);
    let mut seen = 0;
    for round in 0..60 {
        // Several times what the journal may take.
        until("there is room", || journal.admit().is_some());
        for number in 0..500 {
            let Some(slot) = journal.admit() else { continue };
            let record = record(round * 500 + number);
            let _ = slot.open(&record);
            let _ = slot.complete(record);
            seen += 1;
        }
        drain(&journal, 500).await;
    }
    assert!(seen > 20_000);
    assert!(journal.bytes() <= 4 << 20);
    journal.flush_after_others();
    let again = on(&disk.after_a_kill(), options(1_000_000), 16);
    let left = drain(&again, 100).await;
    assert!(
        left.iter()
            .any(|record| record.id == slow.id && record.error == Some(ErrorClass::Interrupted))
    );
    let _ = slow_slot.complete(slow);
    assert_eq!(drain(&journal, 10).await.len(), 1);
}

#[test]
fn many_threads_at_once_lose_nothing_and_every_one_is_written() {
    let disk = MemoryDisk::default();
    let journal = on(&disk, options(1_000_000), 16);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let journal = journal.clone();
            scope.spawn(move || {
                for number in 0..2_000 {
                    let record = record(thread * 2_000 + number);
                    let slot = loop {
                        if let Some(slot) = journal.admit() {
                            break slot;
                        }
                    };
                    let _ = slot.open(&record);
                    let written = slot.complete(record).unwrap();
                    if !written.is_reached() {
                        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                        runtime.block_on(written.reached());
                        assert!(written.is_reached());
                    }
                }
            });
        }
    });
    // Nobody flushed but those who handed in.
    let again = on(&disk.after_a_kill(), options(1_000_000), 16);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found: HashSet<_> = runtime.block_on(numbers(&again, 500)).into_iter().collect();
    assert_eq!(found.len(), 8_000);
}

#[test]
fn a_second_process_is_told_whose_the_directory_is() {
    let dir = tempfile::tempdir().unwrap();
    let mine = JournalOptions {
        dir: dir.path().join("journal"),
        max_bytes: 4 << 20,
        ..options(100)
    };
    let first = Journal::open(mine.clone(), Arc::default()).unwrap();
    let refused = Journal::open(mine.clone(), Arc::default()).unwrap_err().to_string();
    assert!(
        refused.contains("in use by another process") && refused.contains("journal.dir"),
        "{refused}"
    );
    complete(&first, 0..3);
    first.set_aside(&record(4), "22003").unwrap();
    first.set_aside(&record(5), "23514").unwrap();
    first.close();
    drop(first);
    let second = Journal::open(mine, Arc::default()).unwrap();
    assert_eq!(second.depth(), 3);
    second.close();
    let aside = std::fs::read_to_string(dir.path().join("journal/set-aside/records.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = aside.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[1]["reason"], &lines[1]["cost_nanousd"]),
        (&"23514".into(), &5.into())
    );
}

/// Steps of a life.
#[derive(Clone, Debug)]
enum Step {
    Complete(u8),
    Commit(u8),
    GiveBack(u8),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u8).prop_map(Step::Complete),
        3 => (1..40_u8).prop_map(Step::Commit),
        1 => (1..40_u8).prop_map(Step::GiveBack),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever happens, every record comes out, in order, and what was committed does not come again but for a batch of
    /// which the journal did not get to write that it was.
    #[test]
    fn any_life_hands_out_every_record_in_order(steps in prop::collection::vec(step(), 1..40)) {
        let small = || JournalOptions { max_bytes: 4 << 20, ..options(1_000_000) };
        let mut disk = MemoryDisk::default();
        let mut journal = on(&disk, small(), 8);
        let (mut next, mut committed) = (0, 0);
        for step in steps {
            match step {
                Step::Complete(count) => {
                    complete(&journal, next..next + usize::from(count));
                    next += usize::from(count);
                }
                Step::Commit(count) | Step::GiveBack(count) => {
                    if journal.must_load() {
                        journal.load(8);
                    }
                    let Some(batch) = journal.batch(usize::from(count)).now_or_never().unwrap() else {
                        prop_assert_eq!(committed, next);
                        continue;
                    };
                    for (number, record) in (committed..).zip(batch.records()) {
                        prop_assert_eq!(number_of(record), number);
                    }
                    if matches!(step, Step::Commit(_)) {
                        committed += batch.records().len();
                        batch.commit();
                    }
                }
                Step::Kill => {
                    journal.flush_after_others();
                    disk = disk.after_a_kill();
                    journal = on(&disk, small(), 8);
                }
            }
            prop_assert_eq!(journal.depth(), next - committed);
            prop_assert_eq!(journal.used(), next - committed);
            let waiting: usize = journal.head.lock().segments.iter().map(|segment| segment.waiting).sum();
            prop_assert_eq!(waiting, next - committed);
            let expected: i64 = (committed..next).filter(|number| number % 10 == 3).map(|number| number as i64).sum();
            let outstanding = journal.outstanding(key(3));
            let known: i64 = outstanding.records.iter().filter_map(|(_, cost)| *cost).map(|cost| cost.0).sum();
            prop_assert_eq!(known + outstanding.spilled.0, expected);
        }
    }
}

/// The figures behind "replay within 5 s" and "at most 64 MiB for a million waiting records". By hand:
/// `cargo test --release --lib a_million -- --ignored --nocapture`.
#[test]
#[ignore = "takes a gigabyte of disk; `just promises` runs it"]
fn a_million_records_wait_in_little_memory_and_are_taken_over_in_seconds() {
    const RECORDS: usize = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let mine = || JournalOptions {
        dir: dir.path().to_owned(),
        max_records: 2 * RECORDS,
        max_bytes: 4 << 30,
        sync: SyncMode::Interval,
        sync_interval: Duration::from_millis(50),
    };
    let journal = Journal::open(mine(), Arc::default()).unwrap();
    complete(&journal, 0..10_000);
    let before = resident_bytes();
    let began = Instant::now();
    for number in 10_000..RECORDS {
        let record = record(number);
        let slot = loop {
            if let Some(slot) = journal.admit() {
                break slot;
            }
            std::thread::yield_now();
        };
        let _ = slot.open(&record);
        let _ = slot.complete(record);
    }
    let filled = began.elapsed();
    let grown = resident_bytes().saturating_sub(before);
    let bytes = journal.bytes();
    journal.close();
    drop(journal);
    let began = Instant::now();
    let again = Journal::open(mine(), Arc::default()).unwrap();
    let replayed = began.elapsed();
    assert_eq!(again.depth(), RECORDS);
    println!(
        "filled in {filled:?} ({:.2} µs each), {} MiB on disk, memory grew by {:.1} MiB, taken over in {replayed:?}",
        filled.as_secs_f64() * 1e6 / RECORDS as f64,
        bytes >> 20,
        grown as f64 / f64::from(1 << 20),
    );
    assert!(grown <= 64 << 20, "{grown} bytes");
    assert!(replayed < Duration::from_secs(5), "{replayed:?}");
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}
