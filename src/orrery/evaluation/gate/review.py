"""Templates of the four reviews that people make: filled in as far as the gate knows, with blanks for the rest."""

from collections.abc import Iterable, Mapping

from orrery.evaluation.gate.decide import Decision
from orrery.evaluation.gate.evidence import Evidence
from orrery.evaluation.gate.ledger import BLANK
from orrery.evaluation.gate.policy import Policy


def reviews(policy: Policy, evidence: Evidence, decision: Decision) -> Mapping[str, str]:
    """File name -> Markdown."""
    return {
        "licence.md": _licence(policy, evidence, decision),
        "security.md": _security(policy, evidence, decision),
        "data_governance.md": _data_governance(policy, evidence, decision),
        "cost.md": _cost(policy, evidence, decision),
    }


def _licence(policy: Policy, evidence: Evidence, decision: Decision) -> str:
    assets = () if evidence.ledger is None else evidence.ledger.assets
    return "\n".join(
        [
            *_head("Licence review", policy, decision),
            f"Allowed by the policy: {', '.join(policy.licences)}.",
            "",
            "## Assets",
            *_table(
                ("asset", "kind", "licence", "origin", "obligations", "approved by"),
                (
                    (
                        asset.name,
                        asset.kind,
                        asset.licence or _blank("legal counsel"),
                        asset.origin or _blank("the owner of the asset"),
                        _blank("legal counsel")
                        if asset.obligations is None
                        else "; ".join(asset.obligations) or "none",
                        asset.approved_by or _blank("whoever approves of the asset"),
                    )
                    for asset in assets
                ),
            ),
            "## Python packages, as installed",
            "What a package states about itself; what its binary parts are under is for the review to look at.",
            *_table(
                ("package", "version", "licence stated"),
                ((p.name, p.version or "not installed", p.licence or "none") for p in evidence.packages),
            ),
            "## To be answered",
            f"- Is the environment or an image of it passed on to others? {_blank('legal counsel')}",
            f"- Is every obligation above met, and where can that be seen? {_blank('legal counsel')}",
            *_foot("legal counsel"),
        ]
    )


def _security(policy: Policy, evidence: Evidence, decision: Decision) -> str:
    files = {} if evidence.checkpoint is None else evidence.checkpoint.files
    return "\n".join(
        [
            *_head("Security review", policy, decision),
            "Weights are read from safetensors files; nothing is unpickled. Packages are listed in licence.md.",
            "",
            "## Files of the checkpoint, hashed at the time of the decision",
            *_table(("file", "sha256"), files.items()),
            "## To be answered",
            f"- Known vulnerabilities of the packages, and the date of that search: {_blank('the security officer')}",
            f"- What can reach the machine over a network, and as whom: {_blank('the security officer')}",
            f"- Who holds the key that signs decisions, and where: {_blank('the security officer')}",
            f"- What stops the robot if the policy misbehaves: {_blank('the safety engineer')}",
            f"- Whom to call after an incident: {_blank('the operator')}",
            *_foot("the security officer"),
        ]
    )


def _data_governance(policy: Policy, evidence: Evidence, decision: Decision) -> str:
    assets = () if evidence.ledger is None else evidence.ledger.assets
    return "\n".join(
        [
            *_head("Data-governance review", policy, decision),
            "## Datasets in the asset ledger",
            *_table(
                ("dataset", "licence", "origin", "files hashed", "people can be recognised"),
                (
                    (a.name, a.licence, a.origin, str(len(a.files)), _blank("the data protection officer"))
                    for a in assets
                    if a.kind == "dataset"
                ),
            ),
            "## To be answered",
            f"- Is that all the data the weights were trained on? {_blank('whoever trained the weights')}",
            f"- What the cameras and microphones of the machine record: {_blank('the operator')}",
            f"- How long it is kept, where, and who may see it: {_blank('the data protection officer')}",
            f"- How somebody has a recording removed: {_blank('the data protection officer')}",
            *_foot("the data protection officer"),
        ]
    )


def _cost(policy: Policy, evidence: Evidence, decision: Decision) -> str:
    cost, speed = decision.cost, evidence.speed
    rows: list[tuple[str, str]] = []
    if cost is not None and speed is not None:
        rows = [
            ("machine, an hour (supplied)", f"{cost.machine_per_hour:g} {cost.currency}"),
            ("policy calls an hour (supplied)", f"{cost.calls_per_hour:g}"),
            ("time of a call, median (measured)", f"{speed.median:.4g} s"),
            ("machines needed", str(cost.machines)),
            ("share of their time in calls", f"{100 * cost.busy:.1f} %"),
            ("cost an hour (estimated)", f"{cost.per_hour:.4g} {cost.currency}"),
            ("cost of 1000 calls (estimated)", f"{cost.per_1000_calls:.4g} {cost.currency}"),
        ]
    return "\n".join(
        [
            *_head("Cost review", policy, decision),
            "## Estimate",
            *_table(("what", "figure"), rows),
            "It counts calls one after the other on each machine, and nothing else: no storage, network or people.",
            "",
            "## To be answered",
            f"- Where the supplied numbers come from: {_blank('the budget owner')}",
            f"- What else it costs to run and to watch over: {_blank('the operator')}",
            f"- The most that may be spent in a month, and what happens then: {_blank('the budget owner')}",
            *_foot("the budget owner"),
        ]
    )


def _head(title: str, policy: Policy, decision: Decision) -> list[str]:
    return [
        f"# {title}: {policy.name}",
        "",
        f"Decision: {decision.verdict}, {decision.document['decided_at']}; reasons and hashes are in decision.json.",
        "",
    ]


def _foot(who: str) -> list[str]:
    return ["", f"Result: {_blank(who)}", "", f"Name and date: {_blank(who)}", ""]


def _blank(who: str) -> str:
    return f"{BLANK} by {who}]"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(heads)
    lines = [" ".join(["|", *(f"{_cell(cell)} |" for cell in row)]) for row in rows]
    if not lines:
        return ["", f"None is known. {_blank('whoever asks for the deployment')}", ""]
    return ["", f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}", *lines, ""]


def _cell(text: str) -> str:
    """Text of one cell: a bar would begin another, a line break would end the row."""
    return " ".join(text.split()).replace("|", "\\|")
