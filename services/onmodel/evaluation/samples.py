"""Sample pictures on the way of a training: some prompts of a test suite, or sd-scripts' prompt lines.

A prompt line is a prompt and options: `--n` negative prompt, `--w` and `--h` size, `--d` seed, `--l` guidance scale,
`--s` steps. Lines that are empty or begin with `#` are left out.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from onmodel.core.config import validate
from onmodel.core.errors import NotFoundError, UserError
from onmodel.dataset.folder import load_dataset
from onmodel.evaluation.planned import DrawingModel, Planned
from onmodel.evaluation.suite import PACKAGED, Prompt, TestSuite, load_suite
from onmodel.evaluation.trial import guess_trigger
from onmodel.training.config import TrainConfig

_OPTION = re.compile(r"\s--(\w+)\s+")
_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative_prompt", str),
    "w": ("width", int),
    "h": ("height", int),
    "s": ("steps", int),
    "l": ("guidance_scale", float),
}
"""sd-scripts' letters beside `d`, the seed."""


@dataclass(frozen=True)
class Sample:
    """One picture that is drawn each time."""

    name: str
    """What it shows, as part of its file's name."""
    prompt: Prompt
    seed: int
    suite: TestSuite
    """Size, steps, sampler and negative prompt."""


@dataclass(frozen=True)
class SamplePictures:
    """What `sample_prompts` names, ready to be drawn with whatever network a pipeline carries."""

    samples: tuple[Sample, ...]

    def draw(self, pipeline: Any, folder: Path, name: str, clip_skip: int = 1) -> list[Path]:
        """Draw each prompt with `pipeline` into `folder`, as `<name>_<what it shows>.png`. Raises as `generate`."""
        from onmodel.evaluation.generate import generate

        scheduler = pipeline.scheduler
        planned = [(sample.suite, self._planned(sample, folder, name)) for sample in self.samples]
        for suite, together in groupby(planned, key=lambda pair: pair[0]):
            generate([each for _, each in together], suite, DrawingModel(name, "", clip_skip=clip_skip), pipeline)
        pipeline.scheduler = scheduler
        return [each.path for _, each in planned]

    @staticmethod
    def _planned(sample: Sample, folder: Path, name: str) -> Planned:
        settings = ("negative_prompt", "steps", "guidance_scale", "sampler")
        origin = {key: getattr(sample.suite, key) for key in settings}
        origin |= {"prompt": sample.prompt.text, "seed": sample.seed}
        path = folder / f"{name}_{sample.name}.png"
        return Planned(path, sample.prompt, 0, sample.prompt.text, sample.seed, origin)


def load_samples(name_or_path: str, trigger: str | None = None) -> SamplePictures:
    """Read a suite (packaged name or JSON file) or a text file of prompt lines.

    Of a suite, the first prompt of each scenario is drawn, with its first seed; `trigger` where it names none.

    Raises:
        NotFoundError: no such file.
        UserError: a suite or a line that is not right; names the line.
    """
    path = Path(name_or_path)
    if path.suffix != ".txt":
        if not path.exists() and not (PACKAGED / f"{name_or_path}.json").is_file():
            raise NotFoundError(
                f"sample_prompts {name_or_path}: no such file or suite; give a suite's name, its JSON file, or a .txt "
                "of prompt lines"
            )
        suite = load_suite(name_or_path)
        if not (suite.trigger or trigger) and any("{trigger}" in text for text in _templates(suite)):
            raise UserError(
                f"sample_prompts {name_or_path}: the suite names no trigger word and no tag is in half of the "
                "captions; add `trigger` to a copy of the suite"
            )
        return SamplePictures(tuple(_of_suite(suite, trigger)))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise NotFoundError(f"sample_prompts {path}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"sample_prompts {path}: cannot be read as text ({error}); check the file") from None
    samples = [
        _of_line(line.strip(), number, f"{path} line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not samples:
        raise UserError(f"sample_prompts {path}: holds no prompt line; write some")
    return SamplePictures(tuple(samples))


def samples_of(config: TrainConfig) -> SamplePictures | None:
    """What a config's `sample_prompts` names, with the trigger word that the dataset's folders or captions show.

    Raises:
        UserError: as `load_samples`, or no dataset there.
    """
    if config.training.sample_prompts is None:
        return None
    pictures = load_dataset(config.data.source).pictures
    named = {picture.class_tokens.split()[0] for picture in pictures if picture.class_tokens}
    tags = Counter(tag.strip() for picture in pictures for tag in picture.caption.split(","))
    trigger = named.pop() if len(named) == 1 else guess_trigger(json.dumps({"": tags}))
    return load_samples(config.training.sample_prompts, trigger)


def _templates(suite: TestSuite) -> list[str]:
    return [text for name in suite.tested for text in getattr(suite.scenarios, name)]


def _of_suite(suite: TestSuite, trigger: str | None) -> list[Sample]:
    first: dict[str, Prompt] = {}
    for prompt in suite.prompts(trigger):
        first.setdefault(prompt.scenario, prompt)
    return [Sample(name, prompt, suite.noise_seed(prompt, 0), suite) for name, prompt in first.items()]


def _of_line(line: str, number: int, source: str) -> Sample:
    text, *options = _OPTION.split(" " + line)
    seed, changes = number, dict[str, Any]()
    for letter, value in zip(options[::2], options[1::2], strict=True):
        try:
            if letter == "d":
                seed = int(value)
            elif letter in _OPTIONS:
                key, kind = _OPTIONS[letter]
                changes[key] = kind(value.strip())
            else:
                raise UserError(f"{source}: option --{letter} is none of --n, --w, --h, --d, --l, --s; remove it")
        except ValueError:
            raise UserError(f"{source}: --{letter} {value.strip()!r} is no number; mend it") from None
    literal = text.strip().replace("{", "{{").replace("}", "}}")
    value = {"scenarios": {"close_up": (literal,)}, "sampler": "default", **changes}
    suite = validate(TestSuite, value, source)
    return Sample(f"p{number:03d}", suite.prompts()[0], seed, suite)
