"""`dskd-compress recipes`: list, show, write and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dskd_compress.commands import options

app = typer.Typer(no_args_is_help=True, help="List, show, write and check recipes.")


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Recipe name or YAML file.", autocompletion=options.complete_recipe)
]


@app.command("list")
def list_recipes(json_output: options.JsonFlag = False) -> None:
    """List the recipes that come with dskd-compress.

    [bold]Examples[/bold]

      dskd-compress recipes list
      dskd-compress recipes list --json
    """
    from dskd_compress import recipe as recipes
    from dskd_compress.console import Output

    output = Output(json_output)
    found = [
        {
            "name": info.name,
            "teacher": info.recipe.teacher.name,
            "student": info.recipe.student.name,
            "method": info.recipe.method.name,
            "data": info.recipe.data.source,
            "description": info.recipe.description,
            "default": info.name == recipes.DEFAULT_RECIPE,
        }
        for info in recipes.list_recipes()
    ]
    width = max(len(str(info["name"])) for info in found)
    for info in found:  # plain lines: a name can be copied, and cut -d' ' -f1 lists them
        output.plain(f"{info['name']:{width}}  {info['description']}".rstrip())
    output.plain(f"\nStart one: dskd-compress run NAME. Without a name: {recipes.DEFAULT_RECIPE}")
    output.result({"recipes": found})


@app.command("show")
def show_recipe(
    name: Name,
    set_: options.Overrides = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print every key with its value, without comments.")
    ] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Print a recipe as written, or resolved with its defaults and overrides.

    [bold]Examples[/bold]

      dskd-compress recipes show digits/resnet18-to-mobilenetv3_small_050
      dskd-compress recipes show mine.yaml --set method.preset=paper
    """
    from dskd_compress.console import Output
    from dskd_compress.recipe import dump_recipe, load_recipe, read_recipe_text

    output = Output(json_output)
    recipe = load_recipe(name, set_ or [])
    if not json_output:
        # Exactly the text, so that it can be sent into a file.
        typer.echo(dump_recipe(recipe) if resolved or set_ else read_recipe_text(name), nl=False)
    output.result(recipe)


@app.command("init")
def init_recipe(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File to write; - prints it.")] = Path(
        "recipe.yaml"
    ),
    all_keys: Annotated[bool, typer.Option("--all", help="Write every key, not only the usual ones.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    json_output: options.JsonFlag = False,
) -> None:
    """Write a recipe of the keys that most people set, with their meaning and default.

    [bold]Examples[/bold]

      dskd-compress recipes init mine.yaml
      dskd-compress recipes init mine.yaml --all
      dskd-compress recipes init -
    """
    import shlex

    from rich.markup import escape

    from dskd_compress import recipe as recipes
    from dskd_compress.console import Output
    from dskd_export.errors import UsageError
    from dskd_export.files.atomic import write_atomic

    output = Output(json_output)
    text = recipes.init_recipe(all_keys=all_keys)
    if str(path) == "-":
        if not json_output:
            typer.echo(text, nl=False)
        output.result({"recipe": text})
        return
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Name a file, for example: {path / 'recipe.yaml'}")
    if path.exists() and not force:
        raise UsageError(f"{path} exists already.", "Give another name, or overwrite it: --force")
    write_atomic(path, text)
    output.print(escape(f"Written: {path}\nNext: dskd-compress recipes check {shlex.quote(str(path))}"))
    output.result({"path": str(path)})


@app.command("schema")
def print_schema(json_output: options.JsonFlag = False) -> None:
    """Print the JSON Schema of a recipe, for editors that check and complete YAML.

    [bold]Examples[/bold]

      dskd-compress recipes schema > recipe.schema.json
    """
    import json

    from dskd_compress.console import Output
    from dskd_compress.recipe import recipe_schema

    output = Output(json_output)
    schema = recipe_schema()
    if not json_output:
        typer.echo(json.dumps(schema, indent=2))
    output.result(schema)


@app.command("check")
def check_recipe(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Recipe name or YAML file.")],
    set_: options.Overrides = None,
    json_output: options.JsonFlag = False,
) -> None:
    """Check a recipe without running it and list every fault with its line (exit code 2).

    [bold]Examples[/bold]

      dskd-compress recipes check mine.yaml
      dskd-compress recipes check mine.yaml --set train.epochs=100
    """
    from rich.markup import escape

    from dskd_compress.console import Output
    from dskd_compress.recipe import load_recipe, section_digests

    output = Output(json_output)
    recipe = load_recipe(file, set_ or [])
    models = f"{recipe.teacher.name} to {recipe.student.name} by {recipe.method.name}"
    output.print(escape(f"{file} is a valid recipe: {models}"))
    output.result({"file": file, "name": recipe.name, "valid": True, "sections": section_digests(recipe)})
