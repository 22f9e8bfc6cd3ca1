"""``python -m tests.held_back FAMILY``: fit the methods of a family and print what they score."""

import argparse
import importlib

from bench.environment import limit_threads

FAMILIES = ("sparse-shift", "lord", "factor-vae")


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.held_back", description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument(
        "--methods", help="as name or name@key=value, separated by spaces; else the family's", nargs="+"
    )
    parser.add_argument("--tasks", help="task/dataset; else the family's", nargs="+")
    parser.add_argument(
        "--draws", help="of simulators: 0,1,2 are shown, those from 1000 on are to choose by", default="0"
    )
    parser.add_argument("--seeds", help="of splits and fits", default="0")
    chosen = parser.parse_args()
    limit_threads()
    family = importlib.import_module(f"tests.held_back.{chosen.family.replace('-', '_')}")
    draws, seeds = numbers(chosen.draws), numbers(chosen.seeds)
    for task in chosen.tasks or family.TASKS:
        family.show(task, chosen.methods or family.METHODS, draws, seeds)


if __name__ == "__main__":
    main()
