"""The tables of suites and of trainings say what the configuration files say."""

from __future__ import annotations

import re

from composed import CONF, config

from winnow.config import choices

DOCS = CONF.parent / "docs"
NUMBERS = {"three": 3, "four": 4, "five": 5, "six": 6}


def table(page: str, group: str) -> dict[str, list[str]]:
    """{choice: the other cells of its row} of the table of a group's choices."""
    rows = re.findall(rf"^\| `{group}=`.*\n\|[-|]+\n((?:\|.*\n)+)", (DOCS / page).read_text(encoding="utf-8"), re.M)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].splitlines()]
    return {re.match(r"`(\w+)`", name)[1]: rest for name, *rest in cells}


def test_the_trainings():
    """Adapters or all weights, epochs, batch and learning rate of every choice but none."""
    told = table("tuning.md", "tuning")
    assert told.keys() == {*choices("tuning")} - {"none"}
    for choice, (trains, *numbers) in told.items():
        found = config(f"tuning={choice}").tuning
        assert found.mode == ("lora" if "adapters" in trains else "full"), choice
        assert [found.epochs, found.batch_size, found.learning_rate] == [float(number) for number in numbers], choice


def test_the_suites():
    """`MMLU 5-shot` or `MMLU 5` has 5 examples, a name alone any number; `, 0-shot` holds for all; `the same` are the
    tasks of the row before. An average has as many members as the row says, or else as it names tasks."""
    told = table("evaluation.md", "evaluation")
    assert told.keys() == {*choices("evaluation")}
    tasks: dict[str, str | None] = {}
    for choice in ("hellaswag_arc_easy", "leaderboard", "consistency", "consistency_large", "adg", "ifeval"):
        names, *mean = re.split("; |, (?=four)", told[choice][0])
        before, tasks = tasks, {}
        for name in re.split(", | and ", names):
            name, shots = re.fullmatch(r"(.*?)(?:(?:^| )(\d+)(?:-shot)?)?", name).groups()
            if not name:
                tasks = dict.fromkeys(tasks, shots)
            elif name == "the same":
                tasks |= before
            else:
                tasks[re.sub(r"\W", "", name).lower()] = shots
        suite = config(f"evaluation={choice}").evaluation
        found = {spec.task.replace("_", ""): str(spec.num_fewshot) for spec in suite.tasks}
        assert found == {task: shots or found.get(task) for task, shots in tasks.items()}, choice
        (size,) = [NUMBERS[word] for word in re.findall(r"\w+", "".join(mean)) if word in NUMBERS] or [len(tasks)]
        averages = {key: len(members) for key, members in (suite.averages or {}).items()}
        assert max(averages.values(), default=None) == (size if mean else None), choice
