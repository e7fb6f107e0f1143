"""SCons script that PlatformIO runs: how a pmeta project is compiled, linked, checked and started."""

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from SCons.Script import COMMAND_LINE_TARGETS, AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
build = env.BoardConfig().get("build")
project = Path(env.subst("$PROJECT_DIR"))
is_test = "test" in env["BUILD_TYPE"]
is_bare_metal = build["kind"] == "bare-metal"

sys.path.insert(0, str(Path(env.PioPlatform().get_dir()) / "builder"))
import machine_code  # noqa: E402  (beside this script, which SCons does not run as a module)
import stack  # noqa: E402

STACK_ENTRY = "board_start"  # the first function with a frame: bare-metal/start.c
STACK_GCC = 10  # the first version that writes the call graph


def fail(message):
    sys.stderr.write(f"Error: {message}\n")
    env.Exit(1)


def find_compiler(candidates):
    """(path, is_zig) of the first compiler there is: the system's, else the clang in the ziglang package."""
    for name in candidates:
        path = shutil.which(name)
        if path:
            return path, False
    may_be_zig = not is_bare_metal or build["clang_flags"]
    if may_be_zig and importlib.util.find_spec("ziglang"):
        return "$PYTHONEXE -m ziglang cc", True
    hint = ", or `pip install ziglang`, which needs no root" if may_be_zig else ""
    fail(f"no C compiler ({' or '.join(candidates)}); install one{hint}")


def configure_tools():
    """Sets CC, AR and RANLIB; returns whether the compiler is zig's clang."""
    compiler, is_zig = find_compiler(
        [f"{prefix}-gcc" for prefix in build["gnu_tools"]] if is_bare_metal else ("cc", "gcc", "clang")
    )
    env.Replace(CC=compiler, LINK="$CC", PROGSUFFIX=".elf" if is_bare_metal else "")
    if is_zig:
        env.Replace(AR="$PYTHONEXE -m ziglang ar", RANLIB="$PYTHONEXE -m ziglang ranlib")
    elif is_bare_metal:
        env.Replace(AR=gnu_tool("ar"), RANLIB=gnu_tool("ranlib"), SIZETOOL=gnu_tool("size"))
    return is_zig


def gnu_tool(name):
    """Of the tools that belong to GCC."""
    return env.subst("$CC").removesuffix("gcc") + name


def writes_call_graph(is_zig):
    """Whether the compiler tells what check_stack needs."""
    if is_zig or not is_bare_metal:
        return False
    done = subprocess.run([env.subst("$CC"), "-dumpversion"], capture_output=True, text=True, check=False)
    return int(done.stdout.partition(".")[0].strip() or 0) >= STACK_GCC


def configure_flags(is_zig):
    includes = ["$PROJECT_SRC_DIR", *(str(project / folder) for folder in build["include"])]
    env.Append(CCFLAGS=build["flags"], CPPPATH=includes, LINKFLAGS=["-Wl,--gc-sections"])
    if is_zig:
        # zig's clang adds run-time checks unless told otherwise; it compiles for this computer's processor by itself.
        env.Append(CCFLAGS=["-fno-sanitize=all"])
    else:
        env.Append(CCFLAGS=build["processor_flags"].get(platform.machine(), []))
    if writes_call_graph(is_zig):
        # A function that GCC folds into an equal one would have no figures.
        env.Append(CCFLAGS=["-fcallgraph-info=su", "-fno-ipa-icf"])
    if is_bare_metal:
        core = build["clang_flags"] if is_zig else build["gcc_flags"]
        env.Append(
            CCFLAGS=[*core, "-ffreestanding"],
            ASFLAGS=core,
            CPPDEFINES=[("BOARD_STACK_BYTES", build["stack_bytes"])],
            LINKFLAGS=[*core, "-nostartfiles", "-nostdlib", "-Wl,-e,board_reset"],
            LIBS=[] if is_zig else ["gcc"],
        )
        env.Replace(LDSCRIPT_PATH=str(project / build["linker_script"]))


def configure_sources():
    """A test brings a main() of its own: of src/ it gets the board only."""
    if is_test:
        env.Append(SRC_FILTER=["-<*.c>"])


def check_ram(target, source, env):
    """Predicted against linked RAM; the build fails if they differ."""
    try:
        from pmeta.codegen.errors import PmetaError
        from pmeta.codegen.project import ram
    except ImportError:
        print("RAM: not checked (pmeta not installed)")
        return 0
    manifest = project / "manifest.json"
    try:
        if is_bare_metal and not is_test:
            results = ram.check_firmware(manifest, Path(str(source[0])), build)
        else:
            results = [ram.check_library(manifest, Path(env.subst("$BUILD_DIR")))]
    except PmetaError as error:
        print(f"Error: {error}")
        return 1
    print(*results, sep="\n")
    return 0 if all(result.equal for result in results) else 1


def check_stack(target, source, env):
    """The compiler's bound against the stack that is reserved; the build fails if it is larger."""
    reserved = build["stack_bytes"]
    if "-fcallgraph-info=su" not in env["CCFLAGS"]:
        print(f"Stack: {reserved} B reserved; not checked (this compiler does not tell its call graph)")
        return 0
    files = [Path(str(node)).with_suffix(".ci") for node in source[0].sources]
    if not files:  # uploading what an earlier command has built and checked
        return 0
    graph = stack.read_graph(path for path in files if path.exists())
    machine_code.complete(graph, str(source[0]), gnu_tool("objdump"))
    firmware = stack.deepest(graph, [STACK_ENTRY])
    library = stack.deepest(graph, [key for key, function in graph.items() if "/pmeta_model/" in function.file])
    print(f"Stack: {stack.verdict(firmware, library, reserved)}")
    return 0 if isinstance(firmware, stack.Unbounded) or firmware.bytes <= reserved else 1


def device_command(action, *arguments):
    """Command line of device.py, which starts and stops the program behind the port."""
    script = Path(env.PioPlatform().get_dir()) / "builder" / "device.py"
    state = project / ".pmeta" / f"{env['PIOENV']}.json"
    words = ["$PYTHONEXE", str(script), action, str(state), *arguments]
    return " ".join(f'"{word}"' for word in words)


configure_flags(configure_tools())
configure_sources()

if "nobuild" in COMMAND_LINE_TARGETS:
    program = env.File("$PROGPATH")
else:
    program = env.BuildProgram()
checks = [env.VerboseAction(check_ram, "Checking RAM")]
if is_bare_metal:
    checks.append(env.VerboseAction(check_stack, "Checking the stack"))
checked = AlwaysBuild(env.Alias("checkram", program, checks))

start = device_command("start", "$SOURCE", *build["qemu"])
env.AddPlatformTarget("upload", program, env.VerboseAction(start, "Starting $SOURCE"), "Start", always_build=True)
env.AddPlatformTarget("stop", None, env.VerboseAction(device_command("stop"), "Stopping"), "Stop", always_build=True)
env.Depends("upload", checked)
if env.get("SIZETOOL") and "nobuild" not in COMMAND_LINE_TARGETS:
    env.Depends("checkprogsize", checked)  # one after the other, or their lines mix

Default([program, checked])
