"""Codes of the problems that rules can have: stable, never reused. Settings use MB0xx, rules MB100 to MB199."""

from __future__ import annotations

CODES: dict[str, str] = {
    # The file
    "MB100": "The file is not valid YAML.",
    "MB101": "A pattern under `rules` matches no file.",
    "MB102": "A key stands twice in one mapping; YAML would silently keep one of them.",
    "MB103": "An unknown key; the nearest known one is named.",
    "MB104": "A value has the wrong shape, e.g. text where a list is due.",
    "MB105": "A required key is missing.",
    "MB106": "Two rules, or a rule and a handler, have the same name; names identify actions for ever.",
    "MB107": "An option has a value that it cannot have.",
    "MB108": "The file is too large or nested too deeply.",
    # YAML traps
    "MB110": "`*` begins an alias in YAML: a glob that begins with it needs quotes.",
    "MB111": "`${…}` inside `{ }` or `[ ]` needs quotes: its braces end the YAML mapping.",
    "MB112": "`!` begins a tag in YAML: write `not`, or quote the text.",
    "MB113": "A text that begins with a quote ends with that quote in YAML: quote the whole.",
    # Actions
    "MB120": "An unknown action.",
    "MB121": "An item of `do` holds no action, or more than one.",
    "MB122": "A field that this action does not have.",
    "MB123": "A literal value that this field cannot have.",
    "MB124": "A required field of the action is missing.",
    "MB125": "The action names no contact.",
    "MB126": "An option stands inside the action; it belongs beside it.",
    "MB127": "An option that this action does not have.",
    # Expressions
    "MB130": "An expression cannot be read.",
    "MB131": "An unknown name in an expression.",
    "MB132": "An unknown function or method in an expression.",
    "MB133": "Something of Python that expressions leave out.",
    "MB134": "An expression is too long or nested too deeply.",
    "MB135": "A function with the wrong number of arguments.",
    "MB136": "`${` without its end, or with nothing inside.",
    "MB137": "`${…}` where an expression is due: `when` takes the bare expression.",
    # Handlers
    "MB140": "A module under `handlers` is not found.",
    "MB141": "A module under `handlers` fails while it is imported.",
    "MB142": "A module under `handlers` has no function marked with @handles.",
    # What rules need
    "MB150": "An action names its contact by an id alone; that needs an identity table that lasts (`state.url`).",
    "MB151": "Other topics write fields of one that is `keyed_by: contact` too: they are always sent (a warning).",
    "MB152": "Kept values of lazy fields do not outlive the process (`state.url`); a notice.",
    # Fields against the schemas of topics
    "MB161": "A field that the topic's schema does not have; the nearest one is named.",
    "MB162": "A field that may be missing or null by the topic's schema, where the rule then fails or never applies (a "
    "warning): guard it with `optional`, `default` or `has`.",
    "MB163": "A value of the wrong kind: for an operation, a function, or a field of an action. A warning where only "
    "some of the values that the schema allows are wrong.",
    "MB164": "A comparison that is always false (or, with `!=` and `not in`, always true); a warning where the schema "
    "lists the values and this is none of them.",
    "MB165": "A `match` that no event of the topics' schemas has as its type; the nearest one is named (a warning).",
    # Tests beside rules
    "MB190": "A test is not well formed.",
    "MB191": "A test names a rule or handler that does not exist.",
    "MB192": "A test expects a field or option that the action does not have.",
    "MB193": "A test beside a rule whose events the rule does not match: it proves nothing (a warning).",
    # What topics need
    "MB196": "Repeated events (`dedupe`) are not known over a restart (`state.url`); a notice.",
    # What is hardly meant (warnings; a few are notices)
    "MB170": "A rule or handler names a topic that is not configured (a warning).",
    "MB171": "A `when` that no event meets (a warning).",
    "MB172": "A `when`, or a part of one, that is always true (a warning).",
    "MB173": "`in` with a single text looks for a part of it; a list was probably meant (a warning).",
    "MB174": "A rule is disabled (a notice).",
    "MB175": "Two actions send the same email, or track the same event, for one event (a warning).",
    "MB176": "A pattern under `match` that looks like a list or a regular expression (a warning).",
    "MB177": "A trigger with `max_age: none`: it is sent however old its event is (a warning).",
    "MB178": "A transactional trigger without a `max_age` of its own: the default of a day holds (a notice).",
    "MB179": "Bulk work shares a topic with transactional actions, which wait behind it (a warning).",
    "MB180": "A usual lifecycle field may be merged away: no rule names it under `preserve` (a warning).",
    "MB181": "` #` begins a comment in YAML and cut an expression.",
    "MB182": "` #` begins a comment in YAML and cut a text before a `${…}` (a warning).",
    "MB183": "A field of `before` or `after` that this kind of change does not have (a warning).",
    "MB184": "A field that is not under `before` or `after` of a changed row (a warning).",
    "MB185": "A `match` that no change of a row has (a warning).",
    "MB186": "Rules of different topics set the same field: which of them is last is not determined (a warning).",
}
