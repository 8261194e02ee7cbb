"""Languages other than Python: the commands that run a program, what these need, and how a program shows where it ended.

The names are MultiPL-E's (Cassano et al. 2023, arXiv 2208.08227). Its authors' containers judge by the exit code alone; here a
statement is put where the tests end, which prints a word drawn for the run, so that ``exit(0)`` in a sample does not pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from activations.errors import TwinprobeError, did_you_mean
from analyses.benchmarks.code_generation.containment import Limits

MARK = "MARK"
"""Stands for the word in :attr:`Language.last`."""
RESERVED = 16 << 30
"""Addresses for runtimes that reserve gigabytes; what they write to is limited all the same."""


@dataclass(frozen=True)
class Language:
    """How programs of a language are run.

    Attributes:
        name: MultiPL-E's name of it.
        about: what has to be installed, in words.
        file: the program's name in the scratch folder.
        steps: commands one after the other, each with the tool that it begins with; a tool may be one that a step has made.
        last: statement that prints :data:`MARK` at the end of the tests; empty where only the exit code tells.
        end: regular expression of the end of a program before which ``last`` is put.
        check: a program that passes where everything is there that MultiPL-E's tests use.
        files: further files, by name.
        places: patterns of folders outside the system's that the tools read.
        processes, open_files: what the tools themselves need.
        reserves: whether the runtime reserves far more addresses than it uses.
        seconds: for compiling and starting, added to what a program may take.
    """

    name: str
    about: str
    file: str
    steps: tuple[tuple[str, ...], ...]
    last: str
    check: str
    end: str = r"\s*\Z"
    files: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, ...] = ()
    processes: int = 8
    open_files: int = 64
    reserves: bool = False
    seconds: int = 0

    @property
    def tools(self) -> tuple[str, ...]:
        """What has to be found on the machine."""
        return tuple(dict.fromkeys(step[0] for step in self.steps if not step[0].startswith("./")))

    def limits(self, given: Limits) -> Limits:
        """``given`` with what the tools need besides."""
        return replace(
            given,
            processes=max(given.processes, self.processes),
            open_files=max(given.open_files, self.open_files),
            address_bytes=max(given.address_bytes, RESERVED if self.reserves else 0),
            wall_seconds=given.wall_seconds + self.seconds,
            cpu_seconds=given.cpu_seconds + self.seconds,
        )

    def marked(self, program: str, mark: str) -> str:
        """The program, with the statement that prints ``mark`` where its tests end.

        Raises:
            TwinprobeError: the program does not end as MultiPL-E's do.
        """
        if not self.last:
            return program
        found = re.search(self.end, program)
        if found is None:
            raise TwinprobeError(
                f"a {self.name} program ends in {program[-40:]!r}; expected tests as MultiPL-E writes them"
            )
        return f"{program[: found.start()]}\n{self.last.replace(MARK, mark)}\n{program[found.start() :].lstrip()}"


_DEEP = """
package Test::Deep;
use strict;
use Exporter "import";
our @EXPORT = ("eq_deeply");
sub eq_deeply {
    my ($got, $expected) = @_;
    return !defined($got) && !defined($expected) unless defined($got) && defined($expected);
    return 0 if ref($got) ne ref($expected);
    if (ref($got) eq "ARRAY") {
        return 0 if @$got != @$expected;
        for my $place (0 .. $#$got) { return 0 unless eq_deeply($got->[$place], $expected->[$place]); }
        return 1;
    }
    if (ref($got) eq "HASH") {
        return 0 if keys(%$got) != keys(%$expected);
        for my $key (keys %$got) {
            return 0 unless exists $expected->{$key} && eq_deeply($got->{$key}, $expected->{$key});
        }
        return 1;
    }
    return $got eq $expected;
}
1;
"""
"""Stands in for Test::Deep's ``eq_deeply`` where that module is not installed: the one function that the tests call."""

_PAIR = """
package org.javatuples;
public final class Pair<A, B> {
    private final A first;
    private final B second;
    public Pair(A first, B second) { this.first = first; this.second = second; }
    public static <A, B> Pair<A, B> with(A first, B second) { return new Pair<>(first, second); }
    public A getValue0() { return first; }
    public B getValue1() { return second; }
    public <C> Pair<C, B> setAt0(C value) { return new Pair<>(value, second); }
    public <C> Pair<A, C> setAt1(C value) { return new Pair<>(first, value); }
    @Override public boolean equals(Object other) {
        return other instanceof Pair && java.util.Objects.equals(first, ((Pair<?, ?>) other).first)
            && java.util.Objects.equals(second, ((Pair<?, ?>) other).second);
    }
    @Override public int hashCode() { return java.util.Objects.hash(first, second); }
    @Override public String toString() { return "[" + first + ", " + second + "]"; }
}
"""
"""Stands in for javatuples' ``Pair``, the one class of that library that the prompts and tests name."""

_JAVA = ("-Xss16m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx512m")
_JAVAC = tuple(f"-J{option}" for option in _JAVA)
_MAIN = r"\}\s*\Z"

LANGUAGES: dict[str, Language] = {
    language.name: language
    for language in (
        Language(
            "js", "Node.js", "program.js", (("node", "program.js"),), 'console.log("\\nMARK");',
            "const assert = require('node:assert');\nassert.deepEqual([1, {a: 2}], [1, {a: 2}]);",
            processes=24, reserves=True,
        ),
        Language(
            "sh", "bash", "program.sh", (("bash", "program.sh"),), 'echo; echo "MARK"',
            'set -e\n[[ $(echo 1 | tr 1 2) = "2" ]]',
            places=("/etc/alternatives",), processes=24,
        ),
        Language(
            "pl", "Perl", "program.pl", (("perl", "-e", 'push @INC, "."; do "./program.pl"; die $@ if $@;'),),
            'print "\\nMARK\\n";', 'use Test::Deep;\nexit 1 unless eq_deeply([1, {"a" => "b"}], [1, {"a" => "b"}]);',
            files={"Test/Deep.pm": _DEEP},
        ),
        Language(
            "java", "a Java development kit, 11 or later", "Problem.java",
            (
                ("javac", *_JAVAC, "-nowarn", "-d", ".", "Problem.java", "org/javatuples/Pair.java"),
                ("java", *_JAVA, "-ea", "-cp", ".", "Problem"),
            ),
            'System.out.println("\\nMARK");',
            "import org.javatuples.*;\nclass Problem {\n    public static void main(String[] args) {\n"
            "    assert(Pair.with(1l, 2l).equals(Pair.with(1l, 2l)));\n    }\n}\n",
            end=r"\}\s*\}\s*\Z", files={"org/javatuples/Pair.java": _PAIR}, places=("/etc/java-*",), processes=48,
            reserves=True, seconds=10,
        ),
        Language(
            "cpp", "g++", "program.cpp", (("g++", "-std=c++17", "-o", "program", "program.cpp"), ("./program",)),
            'std::cout << "\\nMARK\\n";', "#include<assert.h>\n#include<bits/stdc++.h>\nint main() {\n    assert(1 == 1);\n}\n",
            end=_MAIN, places=("/etc/alternatives",), processes=12, seconds=10,
        ),
        Language(
            "rs", "the Rust compiler", "program.rs",
            (("rustc", "-A", "warnings", "-C", "link-arg=-fuse-ld=bfd", "-o", "program", "program.rs"), ("./program",)),
            'println!("\\nMARK");', "fn main() {\n    assert_eq!(vec![1], vec![1]);\n}\n",
            end=_MAIN, places=("/etc/alternatives",), processes=32, reserves=True, seconds=10,
        ),
        Language(
            "rb", "Ruby with test-unit", "program.rb", (("ruby", "program.rb"),), "",
            "require 'test/unit'\nclass TestIt < Test::Unit::TestCase\n  def test_it\n    assert_equal(1, 1)\n  end\nend\n",
            processes=12,
        ),
        Language(
            "php", "PHP", "program.php", (("php", "program.php"),), 'echo "\\nMARK\\n";',
            '<?php\nif ([1, 2] !== [1, 2]) { throw new Exception("Test failed!"); }', places=("/etc/php",),
        ),
        Language(
            "r", "R", "program.R", (("Rscript", "--vanilla", "program.R"),), 'cat("\\nMARK\\n")',
            "stopifnot(isTRUE(all.equal(list(1), list(1))))", places=("/etc/R", "/etc/alternatives"), processes=24,
            open_files=256,
        ),
        Language(
            "lua", "Lua with luaunit", "program.lua", (("lua", "program.lua"),),
            'local failures = lu.LuaUnit.run()\nif failures == 0 then print("\\nMARK") end\nos.exit(failures)',
            "lu = require('luaunit')\nfunction test_humaneval()\n    lu.assertEquals({1}, {1})\nend\nos.exit(lu.LuaUnit.run())",
            end=r"os\.exit\(lu\.LuaUnit\.run\(\)\)\s*\Z",
        ),
    )
}  # fmt: skip
"""What can be run, by name. Rust's own linker would need /proc, which the sandbox has none of: the system's is taken."""


def language_named(name: str) -> Language:
    """The language of that name; raises :class:`TwinprobeError` where there are no commands for it."""
    if name not in LANGUAGES:
        raise TwinprobeError(
            f"no commands to run {name!r} programs{did_you_mean(name, LANGUAGES)}; expected python, {', '.join(LANGUAGES)}"
        )
    return LANGUAGES[name]
