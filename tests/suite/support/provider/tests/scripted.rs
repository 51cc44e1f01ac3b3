//! Scripts, connections, and the bill under both.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn scripts_come_in_order_and_faithful_answers_after_them() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::overloaded());
    provider.script(Script::rate_limited("2"));
    provider.script(Script::bad_gateway_page());
    for status in [429, 502, 503, 503] {
        assert_eq!(post(&provider, CHAT, &chat("x")).await.status, status);
    }
    provider.heal();
    assert_eq!(post(&provider, CHAT, &chat("x")).await.status, 200);
}

#[tokio::test]
async fn a_cut_ends_with_fin_and_a_reset_with_rst_and_both_after_everything_before_them() {
    let provider = ScriptedProvider::start().await;
    let kinds = [
        (Script::cut_after_events(3), Ok(())),
        (Script::reset_after_events(3), Err(ErrorKind::ConnectionReset)),
    ];
    for (request, (script, closing)) in kinds.into_iter().enumerate() {
        provider.script(script);
        let (seen, closed) = listen(dial(&provider, &streamed("words:9")).await).await;
        assert_eq!(closed, closing);
        assert!(seen.contains("word-2") && !seen.contains("word-3") && !seen.ends_with("0\r\n\r\n"));
        let exchange = provider.ended(request).await;
        assert_eq!(
            (exchange.ending, exchange.billed.completion),
            (Some(Ending::CutByProvider), 2)
        );
    }
    assert_eq!(provider.served().cut_by_provider, 2);
}

#[tokio::test]
async fn a_large_answer_arrives_up_to_the_very_byte_of_its_cut() {
    let provider = ScriptedProvider::start().await;
    let body = Answer::whole(200, "application/json", vec![b'x'; 9_000_000]);
    provider.script(body.cut_after_bytes(8_000_000));
    let (seen, closed) = listen(dial(&provider, &chat("x")).await).await;
    let (_, body) = seen.split_once("\r\n\r\n").unwrap();
    assert_eq!((body.len(), closed), (8_000_000, Ok(())));
}

#[tokio::test]
async fn nothing_is_sent_before_a_cut_before_the_headers() {
    let provider = ScriptedProvider::start().await;
    provider.script(Script::cut_before_headers());
    assert_eq!(listen(dial(&provider, &chat("x")).await).await, (String::new(), Ok(())));
    provider.script(Script::reset_before_headers());
    assert_eq!(
        listen(dial(&provider, &chat("x")).await).await,
        (String::new(), Err(ErrorKind::ConnectionReset))
    );
}

#[tokio::test]
async fn a_false_length_is_really_sent() {
    let provider = ScriptedProvider::start().await;
    for (surplus, script) in [(10, Script::length_too_long()), (-10, Script::length_too_short())] {
        provider.script(script);
        let (seen, _) = listen(dial(&provider, &chat("x")).await).await;
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        let announced = head.split_once("content-length: ").unwrap().1.lines().next().unwrap();
        assert_eq!(announced.parse::<i64>().unwrap(), body.len() as i64 + surplus);
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_wherever_the_answer_stands() {
    let provider = ScriptedProvider::start().await;
    let scripts = [
        (Script::stalled_before_headers(), 0),
        (Script::slow_to_begin(Duration::from_secs(3600)), 0),
        (Script::stalled_after_headers(), 0),
        (Script::stalled_after_events(3), 2),
        (Script::slow_events(Duration::from_secs(3600)), 0),
        (
            Script::faithful().edited(|answer| answer.stall_after_events(2).on_the_wire()),
            1,
        ),
    ];
    for (request, (script, words)) in scripts.into_iter().enumerate() {
        provider.script(script);
        let client = dial(&provider, &streamed("words:9")).await;
        provider.received(request + 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(provider.open_connections(), 1);
        let left_at = Instant::now();
        drop(client);
        let departure = provider.client_left(request).await;
        assert!(departure.at - left_at < Duration::from_millis(250));
        assert_eq!(departure.billed.completion, words);
    }
    assert_eq!(
        (provider.served().cut_by_client, provider.served().streams_cut_by_client),
        (6, 3)
    );
}

#[tokio::test]
async fn any_slicing_gives_the_same_bytes_and_the_same_bill() {
    let provider = ScriptedProvider::start().await;
    let whole = post(&provider, CHAT, &streamed("grüße 🐟 words")).await;
    let bill = provider.ended(0).await.billed;
    for (request, lengths) in [&[1][..], &[7, 1, 3], &[4096]].into_iter().enumerate() {
        provider.script(Script::sliced(lengths));
        let sliced = post(&provider, CHAT, &streamed("grüße 🐟 words")).await;
        let same_id = |bytes: &Bytes| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(|c: char| c.is_ascii_digit(), "0")
        };
        assert_eq!(same_id(&sliced.body), same_id(&whole.body));
        assert_eq!(provider.ended(request + 1).await.billed, bill);
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_pass_on_the_paused_clock_of_a_test() {
    let provider = ScriptedProvider::start().await;
    provider.script(Script::dripping(Duration::from_secs(60)));
    let before = Instant::now();
    let stream = post(&provider, CHAT, &streamed("hello")).await;
    assert_eq!(stream.streamed_text(), "You said: hello");
    assert!(before.elapsed() > Duration::from_secs(60 * 60));
}

#[tokio::test]
async fn the_bytes_nobody_expects_are_sent_as_named() {
    let provider = ScriptedProvider::start().await;
    let mut seen = Vec::new();
    for script in [
        Script::crlf(),
        Script::with_comments(),
        Script::without_done(),
        Script::invalid_utf8(),
        Script::endless_line(100_000),
        Script::huge_event(1_000_000),
        Script::azure_async_filter(),
    ] {
        provider.script(script);
        seen.push(post(&provider, CHAT, &streamed("hello")).await);
    }
    let [crlf, comments, without_done, invalid, endless, huge, azure] = &seen[..] else {
        unreachable!()
    };
    assert!(crlf.body.ends_with(b"\r\n\r\ndata: [DONE]\r\n\r\n"));
    assert!(comments.body.starts_with(b": ") && comments.streamed_text() == "You said: hello");
    assert!(!without_done.body.ends_with(b"[DONE]\n\n") && without_done.streamed_text() == "You said: hello");
    assert!(str::from_utf8(&invalid.body).is_err());
    assert!(endless.body.len() == 100_006 && !endless.body.contains(&b'\n'));
    assert!(huge.streamed_text().len() > 1_000_000);
    let records = azure.records();
    assert!(records[0]["choices"] == json!([]) && records[0]["prompt_filter_results"].is_array());
    assert!(records.last().unwrap()["choices"][0].get("delta").is_none());
}

#[tokio::test]
async fn usage_left_out_is_billed_nonetheless() {
    let provider = ScriptedProvider::start().await;
    provider.always(Script::without_usage());
    assert_eq!(post(&provider, CHAT, &chat("hello")).await.json().get("usage"), None);
    let body = with(streamed("hello"), "stream_options", json!({ "include_usage": true }));
    let records = post(&provider, CHAT, &body).await.records();
    assert!(
        records
            .iter()
            .all(|record| record.get("usage").is_none() && record["choices"] != json!([]))
    );
    provider.ended(1).await;
    assert_eq!(provider.served().completion_tokens, 6);
}

#[tokio::test]
async fn a_redirect_names_the_same_path_elsewhere() {
    let (provider, elsewhere) = (ScriptedProvider::start().await, ScriptedProvider::start().await);
    provider.script(Script::redirected_to(&elsewhere.origin()));
    let redirect = post(&provider, CHAT, &chat("hello")).await;
    assert_eq!(redirect.status, 307);
    assert_eq!(redirect.headers["location"], format!("{}{CHAT}", elsewhere.origin()));
    assert_eq!(provider.ended(0).await.ending, Some(Ending::Finished));
}

#[tokio::test]
async fn nothing_listens_on_a_closed_port() {
    let closed: ClosedPort = closed_port();
    let refused = TcpStream::connect(closed.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_stopped_provider_drops_its_connections_and_can_come_back_at_its_address() {
    let provider = ScriptedProvider::start().await;
    provider.script(Script::stalled_after_events(1));
    let client = dial(&provider, &streamed("hello")).await;
    provider.received(1).await;
    let address = provider.stop().await;
    let (_, closed) = listen(client).await;
    assert_eq!(closed, Ok(()));
    assert!(TcpStream::connect(address).await.is_err());
    let provider = ScriptedProvider::start_on(address).await;
    assert_eq!(post(&provider, CHAT, &chat("hello")).await.status, 200);
}

#[tokio::test]
async fn a_written_answer_bills_what_its_steps_say() {
    let provider = ScriptedProvider::start().await;
    let tokens = Tokens {
        prompt: 10,
        cached: 4,
        completion: 7,
        reasoning: 3,
    };
    provider.script(Answer::json(200, &json!({ "choices": [] })).billing(tokens));
    provider.script(Answer::stream([
        Step::send("data: {}\n\n"),
        Step::billed("data: [DONE]\n\n", tokens),
    ]));
    post(&provider, CHAT, &chat("x")).await;
    post(&provider, CHAT, &streamed("x")).await;
    assert_eq!(
        (provider.served().prompt_tokens, provider.served().reasoning_tokens),
        (20, 6)
    );
}

#[tokio::test]
async fn the_bill_is_exact_when_many_come_at_once_and_half_of_them_leave() {
    let provider = ScriptedProvider::start().await;
    let staying = (0..40).map(|_| async { post(&provider, CHAT, &streamed("words:300")).await.streamed_text() });
    let leaving = (0..40).map(|_| async {
        let mut client = dial(&provider, &streamed("words:300 pause_ms:1")).await;
        client.read_exact(&mut [0; 2000]).await.unwrap();
    });
    let (texts, _) = tokio::join!(join_all(staying), join_all(leaving));
    for request in 0..80 {
        provider.ended(request).await;
    }
    let served = provider.served();
    assert!(texts.iter().all(|text| text.ends_with(" word-300")));
    assert_eq!((served.streams_finished, served.streams_cut_by_client), (40, 40));
    assert_eq!(served.prompt_tokens, 40 * 4 + 40 * 5);
    // Each stream is a role, its words, a finish and `[DONE]`, and a leaving client never sees more than words.
    let left = provider
        .exchanges()
        .into_iter()
        .filter(|exchange| exchange.ending == Some(Ending::ClientLeft));
    let words_left: usize = left.map(|exchange| exchange.pieces_sent - 1).sum();
    assert_eq!(served.completion_tokens, 40 * 300 + words_left as u64);
}
