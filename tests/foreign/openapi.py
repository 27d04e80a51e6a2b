"""The description of the HTTP API that a gateway gives of itself, and answers checked against it."""

import copy
import re

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def strict(schema):
    """The same schema, where objects have no other members than those told of."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    if "properties" in made and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return made


class Description:
    def __init__(self, document):
        OpenAPIV31SpecValidator(document).validate()
        self.document = document
        self.strict = {**document, "components": strict(copy.deepcopy(document["components"]))}

    def operation(self, method, path):
        """The operation at a path as it is asked for, without its query."""
        path = path.split("?")[0]
        for template, operations in self.document["paths"].items():
            pattern = re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template))
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return operations[method.lower()]
        raise AssertionError(f"{method} {path} is not described")

    def check(self, method, path, status, answer, kind="application/json"):
        """Fails when an answer is not as it is described."""
        response = self.operation(method, path)["responses"][str(status)]
        self.validate(response["content"][kind]["schema"], answer)

    def validate(self, schema, value):
        Draft202012Validator({**self.strict, **schema}).validate(value)

    def accepts(self, name, value):
        """Whether the value fits the schema of this name."""
        schema = {"$ref": f"#/components/schemas/{name}"}
        return Draft202012Validator({**self.strict, **schema}).is_valid(value)
