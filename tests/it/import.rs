//! Files of people: streamed in, counted, each bad line with its number and reason.

use serde_json::{Value, json};

use super::harness::{Database, Tidings};

fn counts(report: &Value) -> Vec<u64> {
    ["received", "created", "updated", "unchanged", "duplicates", "rejected"]
        .map(|name| report[name].as_u64().unwrap())
        .to_vec()
}

on_both! {
    async fn a_file_goes_in_but_for_its_bad_lines(database: Database) {
        let tidings = Tidings::start_web(database).await;
        tidings.post("/recipients", json!({ "email": "known@example.org", "name": "Old", "locale": "de" })).await.ok();
        tidings.post("/recipients", json!({ "email": "same@example.org", "name": "Same" })).await.ok();
        let mut file = b"\xef\xbb\xbfemail,name,external_id,locale,tags,city\r\n".to_vec();
        file.extend_from_slice(b"new@example.org,\"New, Person\",n-1,en,a;b,Graz\r\n");
        file.extend_from_slice(b"KNOWN@example.org,Known,,,,\r\n");
        file.extend_from_slice(b"same@example.org,Same,,,,\r\n");
        file.extend_from_slice(b"\r\n");
        file.extend_from_slice(b"New@Example.org,Other,,,,\r\n");
        file.extend_from_slice(b"not-an-address,X,,,,\r\n");
        file.extend_from_slice(b"bad@example.org,\xff,,,,\r\n");
        file.extend_from_slice(b"tabs@example.org,X,,,,\"two\r\nlines\"\r\n");
        file.extend_from_slice(b"short@example.org,X\r\n");
        file.extend_from_slice(b"last@example.org,Last,,,,");
        let report = tidings.post_text("/recipients/import", "text/csv; charset=utf-8", file.clone()).await.ok();
        assert_eq!(counts(&report), [9, 3, 1, 1, 1, 3]);
        assert_eq!(report["errors_left_out"], 0);
        assert_eq!(report["errors"], json!([
            { "line": 7, "reason": "`email`: the address is not of the form name@domain" },
            { "line": 8, "reason": "the column `name` is not UTF-8" },
            { "line": 11, "reason": "has 2 columns where the header has 6" },
        ]));
        let new = tidings.get("/recipients?email=new%40example.org").await.ok()["items"][0].clone();
        assert_eq!((&new["name"], &new["tags"]), (&json!("New, Person"), &json!(["a", "b"])));
        assert_eq!(new["attributes"], json!({ "city": "Graz" }));
        let known = tidings.get("/recipients?email=known%40example.org").await.ok()["items"][0].clone();
        assert_eq!((&known["name"], &known["locale"]), (&json!("Known"), &json!("de")));

        let again = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!(counts(&again), [9, 0, 0, 5, 1, 3], "the same file again changes nothing");
        tidings.stop().await;
    }

    async fn a_file_without_a_usable_header_or_type_is_refused_whole(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let post = async |kind: &str, text: &str| tidings.post_text("/recipients/import", kind, text.to_owned()).await;
        assert!(post("text/csv", "name\nAnn\n").await.refuses("").contains("no column `email`"));
        assert!(post("text/csv", "email,name,name\na@b.example,A,B\n").await.refuses("").contains("twice"));
        assert!(post("text/csv", "").await.refuses("").contains("empty"));
        post("application/json", "{}").await.problem(415);
        assert_eq!(counts(&post("application/x-ndjson", "").await.ok()), [0; 6]);
        assert_eq!(tidings.get("/recipients").await.ok()["items"], json!([]));
        tidings.stop().await;
    }

    async fn a_report_names_a_thousand_errors_and_counts_the_rest(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let file = format!("email\n{}ann@example.org\n", "nobody\n".repeat(1500));
        let report = tidings.post_text("/recipients/import", "text/csv", file).await.ok();
        assert_eq!(counts(&report), [1501, 1, 0, 0, 0, 1500]);
        assert_eq!(report["errors"].as_array().unwrap().len(), 1000);
        assert_eq!((&report["errors"][999]["line"], &report["errors_left_out"]), (&json!(1001), &json!(500)));
        tidings.stop().await;
    }

    async fn many_files_of_the_same_people_at_once_all_go_in(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let file = |shift: usize| {
            let mut lines: Vec<String> =
                (0..3000).map(|n| format!("p{}@people.example.com,Person {n},{shift}", (n * 7 + shift) % 3000)).collect();
            lines.insert(0, "email,name,file".to_owned());
            lines.join("\n")
        };
        let uploads = (0..4).map(|n| {
            let (api, file) = (tidings.with_key("admin-key-of-the-tests"), file(n * 500));
            async move { api.post_text("/recipients/import", "text/csv", file).await }
        });
        let reports = futures_util::future::join_all(uploads).await;
        let created: u64 = reports.iter().map(|report| report.ok()["created"].as_u64().unwrap()).sum();
        assert_eq!(created, 3000);
        for report in &reports {
            let counts = counts(&report.ok());
            assert_eq!(counts[0], 3000);
            assert_eq!(counts[1..4].iter().sum::<u64>(), 3000, "{counts:?}");
        }
        tidings.stop().await;
    }

    async fn a_file_larger_than_any_body_limit_streams_in(database: Database) {
        let tidings = Tidings::start_web(database).await;
        let pad = "x".repeat(900);
        let file: String = (0..4000).map(|n| format!("{{\"email\":\"p{n}@people.example.com\",\"attributes\":{{\"pad\":\"{pad}\"}}}}\n")).collect();
        assert!(file.len() > 3_000_000);
        let report = tidings.post_text("/recipients/import", "application/x-ndjson", file).await.ok();
        assert_eq!(counts(&report), [4000, 4000, 0, 0, 0, 0]);
        tidings.stop().await;
    }
}
