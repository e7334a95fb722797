-- One click of a person whom nobody has clicked for yet: the statements that Tidings runs for it, for pgbench. Tidings
-- runs the same ones for all the people at once who click at the same time.
\set i :i + 1
\set n :client_id * :each + :i - 1
SELECT address_hash AS hash, delivery_id AS delivery, brand_id AS brand, topic_id AS topic, gen_random_uuid() AS event,
       gen_random_uuid() AS second FROM load_people WHERE n = :n \gset
SELECT * FROM brands WHERE id IN (:brand);
SELECT * FROM topics WHERE id IN (:topic) OR (customers_keep AND class = 'relationship' AND archived_at IS NULL);
SELECT address_hash, address, locale FROM recipients WHERE address_hash IN (:hash);
BEGIN;
SET LOCAL lock_timeout = '1s';
INSERT INTO addresses (address_hash, last_seq, failures) VALUES (:hash, 2, 0)
  ON CONFLICT (address_hash) DO UPDATE SET last_seq = addresses.last_seq + excluded.last_seq RETURNING address_hash, last_seq;
INSERT INTO opt_events (id, address_hash, seq, said, scope_kind, brand_id, topic_id, channel, complaint, delivery_id, recorded_at, recorded_by)
  VALUES (:event, :hash, 1, 'opt_out', 'all', NULL, NULL, 'one_click', false, :delivery, 1, 'link'),
         (:second, :hash, 2, 'opt_out', 'topic', :brand, :topic, 'one_click', false, :delivery, 1, 'link');
INSERT INTO suppressions (address_hash, scope_key, scope_kind, brand_id, topic_id, said, seq, complaint, event_id)
  VALUES (:hash, 'all', 'all', NULL, NULL, 'opt_out', 1, false, :event),
         (:hash, 'topic:' || CAST(:topic AS text), 'topic', :brand, :topic, 'opt_out', 2, false, :second)
  ON CONFLICT (address_hash, scope_key) DO UPDATE
    SET said = excluded.said, seq = excluded.seq, complaint = excluded.complaint, event_id = excluded.event_id;
COMMIT;
SELECT q.address_hash FROM queue q WHERE q.address_hash = :hash UNION ALL
  SELECT d.address_hash FROM doubts d WHERE d.address_hash = :hash;
