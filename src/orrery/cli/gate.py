"""`orrery gate`: decide whether a checkpoint may be deployed, or check such a decision. See `evaluation.gate`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from orrery.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Allow or refuse a deployment on evidence, and sign the decision; the exit code is 1 for a refusal."""

    policy: tyro.conf.Positional[Path | None] = None
    """GATE.toml: the evidence and what it must say; paths in it are relative to it."""
    out: Path | None = None
    """Folder for the decision, its signature and the reviews; nothing is overwritten."""
    key: Path | None = None
    """Private key to sign with."""
    new_key: Path | None = None
    """Instead of deciding, make a private key here, and the public key beside it, ending in .pub."""
    verify: Path | None = None
    """Instead of deciding, check the decision in this folder: its signature, its expiry, and whether it allows."""
    public_key: Path | None = None
    """The key to check with; had from whoever signs, not from the folder."""

    def __call__(self) -> None:
        given = {
            name
            for name in ("policy", "out", "key", "new_key", "verify", "public_key")
            if getattr(self, name) is not None
        }
        if self.policy and self.out and self.key and len(given) == 3:
            self._decide(self.policy, self.out, self.key)
        elif self.new_key and len(given) == 1:
            from orrery.evaluation.gate.sign import make_key

            print(f"Wrote {self.new_key} (keep it secret) and {make_key(self.new_key)}.")
        elif self.verify and self.public_key and len(given) == 2:
            self._verify(self.verify, self.public_key)
        else:
            raise SettingsError(
                "Give GATE.toml with --out and --key to decide, --new-key alone to make a key, or --verify with "
                f"--public-key to check a decision; got {', '.join(sorted(given)) or 'nothing'}."
            )

    def _decide(self, policy_path: Path, out: Path, key_path: Path) -> None:
        from datetime import UTC, datetime

        from orrery.evaluation.gate.decide import decide
        from orrery.evaluation.gate.evidence import gather
        from orrery.evaluation.gate.policy import read_policy
        from orrery.evaluation.gate.review import reviews
        from orrery.evaluation.gate.sign import read_key, write_decision

        # Before anything is hashed or measured: a mistake is refused at once.
        if out.exists():
            raise SettingsError(f"{out} exists, and no decision is overwritten. Give a new folder.")
        policy, key = read_policy(policy_path), read_key(key_path)
        evidence = gather(policy)
        decision = decide(policy, evidence, datetime.now(UTC))
        sha256 = write_decision(out, decision.document, key, reviews(policy, evidence, decision))
        print(f"Decision: {decision.verdict}.")
        _list("Reasons", decision.reasons)
        _list("Limits", decision.limits)
        print(f"Wrote {out}; decision.json has sha256 {sha256}, expires {decision.document['expires_at']}.")
        if decision.verdict == "refuse":
            raise SystemExit(1)

    def _verify(self, folder: Path, public_key: Path) -> None:
        from datetime import UTC, datetime

        from orrery.evaluation.gate.sign import check_decision, read_public_key

        found = check_decision(folder, read_public_key(public_key), datetime.now(UTC))
        print(f"Signature: {'valid' if found.signed else 'NOT valid'}; decision.json has sha256 {found.sha256}.")
        if found.decision is not None:
            print(f"Decision: {found.decision}, expires {found.expires_at}.")
        _list("Limits", found.limits)
        _list("It does not hold", found.problems)
        if found.problems:
            raise SystemExit(1)


def _list(title: str, lines: tuple[str, ...]) -> None:
    if lines:
        print("\n".join([f"{title}:", *(f"- {line}" for line in lines)]))
