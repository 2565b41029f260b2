use super::*;

fn wish(connection: Option<&str>) -> Wish {
    Wish {
        file: "x".into(),
        inside: true,
        outside: true,
        ike_plain: true,
        connection: connection.map(str::to_owned),
        snaplen: 65535,
        limit: 100_000,
        rate: 1,
    }
}

#[test]
fn no_capture_begins_while_the_last_one_is_being_written() {
    let (queue, captured) = CaptureQueue::new();
    let progress = Arc::new(Progress::new(wish(None)));
    let captures = Captures { running: None, last: Some(Arc::clone(&progress)) };
    assert_eq!(captures.may_begin(), Err(NotBegun::Unwritten("x".into())));
    drop(queue);
    let (full, _) = oneshot::channel();
    Writer { file: tempfile::tempfile().unwrap(), progress, labels: Labels::default(), full }.run(captured);
    assert_eq!(captures.may_begin(), Ok(()));
}
