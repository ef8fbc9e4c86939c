"""What became of the tensors of a source."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Resampled:
    """A parameter that came for another image or patch size."""

    name: str
    old: tuple[int, ...]
    new: tuple[int, ...]
    rule: str

    def __str__(self) -> str:
        return f"{self.name} {self.old} to {self.new}, {self.rule}"


@dataclass(frozen=True)
class WeightReport:
    """What became of the tensors of a source. Names are the network's, those of ``left_over``, ``unused`` the source's.

    Args:
        source: file, or ``arrays``.
        naming: whose names the source has.
        loaded: every parameter that has its values from the source.
        renamed: those of them that one tensor of another name gave.
        merged: those that several tensors gave.
        resampled: those that came for another image or patch size.
        reset: parameters of the head that stay as they were.
        left_over: tensors of the training state.
        unused: weights that no network of ours has.
    """

    source: str
    naming: str
    loaded: list[str]
    renamed: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    resampled: list[Resampled] = field(default_factory=list)
    reset: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"loaded {len(self.loaded)}"]
        for word in ("renamed", "merged"):
            if getattr(self, word):
                parts.append(f"{word} {len(getattr(self, word))}")
        if self.resampled:
            parts.append(f"resampled {len(self.resampled)} ({'; '.join(map(str, self.resampled))})")
        if self.reset:
            parts.append(f"reset {len(self.reset)} ({', '.join(self.reset)})")
        if self.left_over:
            parts.append(f"left over {len(self.left_over)} of the training state")
        if self.unused:
            parts.append(f"not used {len(self.unused)} ({', '.join(self.unused)})")
        return f"weights of {self.source} (naming: {self.naming}): {', '.join(parts)}"

    def listing(self) -> str:
        """The same with every name, a line each."""
        lines = [str(self)]
        for title in ("loaded", "renamed", "merged", "resampled", "reset", "left_over", "unused"):
            entries = getattr(self, title)
            if entries:
                lines.append(f"{title.replace('_', ' ')}: {len(entries)}")
                lines += [f"  {entry}" for entry in entries]
        return "\n".join(lines)
