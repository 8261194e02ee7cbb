"""What the node types of tree-sitter's grammars are called in the words that all languages share.

One table serves all grammars, as a type that several have (``call_expression``) means the same in each. A probe
trained on one language can therefore be tested on another. Node types in no table are transparent: what is below them
counts as if it were directly below the next node above (argument lists, parentheses, lists without brackets, casts).

====================  ==========================================================================================
kind of a node        what it is
====================  ==========================================================================================
``call``              a call, of a constructor too
``assignment``        an assignment, with an operator too, or a declaration with a value
``binary``            two operands: arithmetic, comparison, logic
``unary``             one operand: sign, negation, address, dereference
``member``            a field or method of an object, a name in a scope
``subscript``         an element by its index or key
``condition``         an ``if`` or ``while``, or a conditional expression
``loop``              a ``for``
``return``            a ``return``
``collection``        a list, tuple, array, set, map or struct in literal form
``pair``              a key or name with its value: in a map, a struct, or a keyword argument
====================  ==========================================================================================

====================  ==========================================================================================
role of a name        what it is
====================  ==========================================================================================
``function``          the name of a function or method where it is defined
``member``            the name of a field or method of an object, or in a scope, where it is used
``name``              a name that stands for itself, be it used or assigned
``parameter``         the name of a parameter where it is declared
====================  ==========================================================================================

Names of types, of keyword arguments and of keys, and names in imports, macros' bodies and strings have no role.
"""

from __future__ import annotations

from typing import NamedTuple


class Language(NamedTuple):
    """A language: the suffixes of its files, the module with its grammar, and the function there that returns it."""

    suffixes: tuple[str, ...]
    module: str
    function: str = "language"


LANGUAGES = {
    "c": Language((".c", ".h"), "tree_sitter_c"),
    "cpp": Language((".cpp", ".cc", ".cxx", ".hpp", ".hh"), "tree_sitter_cpp"),
    "go": Language((".go",), "tree_sitter_go"),
    "java": Language((".java",), "tree_sitter_java"),
    "javascript": Language((".js", ".mjs", ".cjs", ".jsx"), "tree_sitter_javascript"),
    "python": Language((".py",), "tree_sitter_python"),
    "rust": Language((".rs",), "tree_sitter_rust"),
    "typescript": Language((".ts", ".mts"), "tree_sitter_typescript", "language_typescript"),
}

KINDS = {
    "call": ("call", "call_expression", "method_invocation", "new_expression", "object_creation_expression"),
    "assignment": (
        "assignment", "augmented_assignment", "named_expression", "assignment_expression",
        "augmented_assignment_expression", "compound_assignment_expr", "variable_declarator", "init_declarator",
        "let_declaration", "assignment_statement", "short_var_declaration", "var_spec", "const_spec",
    ),
    "binary": ("binary_operator", "boolean_operator", "comparison_operator", "binary_expression"),
    "unary": ("unary_operator", "not_operator", "unary_expression", "pointer_expression", "reference_expression"),
    "member": (
        "attribute", "member_expression", "field_access", "field_expression", "selector_expression",
        "scoped_identifier",
    ),
    "subscript": ("subscript", "subscript_expression", "array_access", "index_expression"),
    "condition": (
        "if_statement", "elif_clause", "while_statement", "conditional_expression", "ternary_expression",
        "if_expression", "while_expression",
    ),
    "loop": (
        "for_statement", "for_in_clause", "for_in_statement", "enhanced_for_statement", "for_range_loop",
        "for_expression", "range_clause",
    ),
    "return": ("return_statement", "return_expression"),
    "collection": (
        "list", "tuple", "set", "dictionary", "array", "object", "array_initializer", "initializer_list",
        "literal_value", "array_expression", "tuple_expression", "field_initializer_list",
    ),
    "pair": ("pair", "keyword_argument", "keyed_element", "field_initializer", "initializer_pair"),
}  # fmt: skip
KIND_OF = {node_type: kind for kind, types in KINDS.items() for node_type in types}

ROLES = {
    "function": (
        "function_definition.name", "function_declarator.declarator", "function_declaration.name",
        "method_declaration.name", "method_definition.name", "function_item.name", "function_signature_item.name",
        "constructor_declaration.name", "generator_function_declaration.name",
    ),
    "member": (
        "attribute.attribute", "member_expression.property", "field_access.field", "field_expression.field",
        "selector_expression.field", "method_invocation.name", "scoped_identifier.name",
    ),
    "name": ("variable_declarator.name", "var_spec.name", "const_spec.name", "init_declarator.declarator"),
    "parameter": (
        "parameters", "lambda_parameters", "default_parameter.name", "typed_parameter", "typed_default_parameter.name",
        "formal_parameters", "formal_parameter.name", "arrow_function.parameter", "required_parameter.pattern",
        "optional_parameter.pattern", "parameter_declaration.name", "parameter_declaration.declarator",
        "optional_parameter_declaration.declarator", "parameter.pattern", "closure_parameters",
    ),
}  # fmt: skip
ROLE_OF = {place: role for role, places in ROLES.items() for place in places}
"""Roles by a name's place: the type of the node above it and the field that it fills there, if any."""

DECLARATORS = (
    "pointer_declarator", "array_declarator", "reference_declarator", "parenthesized_declarator",
    "list_splat_pattern", "dictionary_splat_pattern", "rest_pattern", "mut_pattern", "ref_pattern",
)  # fmt: skip
"""Nodes that stand between a name and what its role follows from."""

OPAQUE = (
    "import_statement", "import_from_statement", "future_import_statement", "import_declaration", "use_declaration",
    "package_declaration", "package_clause", "extern_crate_declaration", "preproc_def", "preproc_function_def",
    "preproc_include", "preproc_call", "token_tree", "attribute_item", "inner_attribute_item", "annotation",
    "marker_annotation", "decorator", "type_arguments", "type_parameters",
    "qualified_identifier",
)  # fmt: skip
"""Nodes that are not looked into, nor are strings."""

UNSEEN = ("preproc_if.condition", "preproc_elif.condition")
"""Places that hold no code of the language."""

STATEMENT_SUFFIXES = ("_statement", "_declaration", "_definition", "_item")
STATEMENTS = (
    "declaration", "elif_clause", "except_clause", "catch_clause", "case_clause", "match_arm", "switch_case",
    "block", "statement_block", "compound_statement",
)  # fmt: skip


def is_statement(node_type: str) -> bool:
    """Whether a node is where counting levels ends: a statement, a definition, a block."""
    return node_type in STATEMENTS or (node_type.endswith(STATEMENT_SUFFIXES) and "parameter" not in node_type)


def is_opaque(node_type: str) -> bool:
    """Whether a node is not looked into."""
    return node_type in OPAQUE or "string" in node_type
