"""The command line: arguments in, sentences and exit codes out.

main.py     the program
app.py      what all commands have in common
job_commands.py, output_commands.py, network_commands.py   the commands
options.py  options of commands, made from the fields of their configs
streams.py  standard streams that are closed or full
console.py  what commands print
samples.py  a few dark images for a first run
"""
