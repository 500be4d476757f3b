"""Replaying dead letters: asked for from outside, carried out by the group, without damage (delivery.md, 26 and 27).

The theory
    A replay is a record. Whoever wants one (`meisa-bridge dlq replay`) writes a *request* into a compacted topic of the
    bridge's own, `<dead letters topic>.replays`, and never calls Meisa. Every instance reads that topic beside the
    group; the one that owns the *source partition* of a letter carries its request out, through the same queues and
    the same quota as live events: so order per contact and the quota hold, however many instances there are.

    The topic is the only truth, nothing about replays is kept elsewhere. It holds three kinds of records, each with
    one writer, so that none of them can undo another (ledger.py):

        request   by the command line   "replay (or discard) this letter, with these options"
        mark      by the owner          "this action started then", "this action was carried out"
        result    by the owner          "that request ended so"

    Work is done in batches, and a batch begins by reading the topic anew: what is open, and what was done of it. An
    interrupted replay (crash, rebalance) therefore goes on where it was without knowing that it was interrupted.

Rules that never break
    1. An action carries its original id, hence its original idempotency key, and is carried out once: by whatever
       letter it is named, and however often that letter was written, a `done` mark ends it. Only `--send-again`, which
       says that it means it, looks past the marks of earlier requests.
    2. A trigger leaves only after a `started` mark was acknowledged. A replay that was interrupted sends it again
       under the same key within the idempotency window, and parks it as `unknown_outcome` after it. What is
       `unknown_outcome` already is sent only with `--send-again`.
    3. What later events of the same contact wrote is left out (later.py): fields, custom fields, a tag's opposite; a
       contact that was re-keyed keeps its newest email. Later events are those behind the letter's record in its
       source partition: all that the log holds, and those that arrive until the replayed action stands in its
       contact's queue. Where retention has removed some, nothing is sent unless `--overwrite` says so.
    4. `max_age` does not hold for a replay: whoever asks for it knows how old the letter is.
    5. No letter is lost: what Meisa refuses again is a fresh letter, acknowledged before its request is answered.

What remains
    A track or an enroll that was carried out, but whose mark was not acknowledged when the process was killed, is sent
    again: Meisa knows no key for these. Where a source topic is compacted, a later event may be gone without a trace;
    its fields are then not left out. Names are linked forwards only: a later event that shares no name with the letter
    or with the events between is taken for somebody else's.
"""
