-- One click of a person whom nobody has clicked for yet: the statements that Tidings runs for it, for pgbench.
\set i :i + 1
\set n :client_id * :each + :i - 1
BEGIN;
WITH one AS (SELECT * FROM load_people WHERE n = :n),
locked AS (
  INSERT INTO addresses (address_hash, last_seq, failures) SELECT address_hash, 0, 0 FROM one
  ON CONFLICT (address_hash) DO UPDATE SET last_seq = addresses.last_seq RETURNING last_seq
) SELECT gen_random_uuid() AS event, address_hash AS hash, delivery_id AS delivery FROM one, locked \gset
SELECT scope_key FROM suppressions WHERE address_hash = :hash;
INSERT INTO opt_events (id, address_hash, seq, said, scope_kind, channel, complaint, delivery_id, recorded_at, recorded_by)
  VALUES (:event, :hash, 1, 'opt_out', 'all', 'one_click', false, :delivery, 1, 'link');
INSERT INTO suppressions (address_hash, scope_key, scope_kind, said, seq, complaint, event_id)
  VALUES (:hash, 'all', 'all', 'opt_out', 1, false, :event)
  ON CONFLICT (address_hash, scope_key) DO UPDATE SET said = excluded.said, seq = excluded.seq, event_id = excluded.event_id;
UPDATE addresses SET last_seq = 1 WHERE address_hash = :hash;
END;
