"""Words in, sentences and exit codes out.

main.py     the commands
options.py  options of commands, made from the fields of their configs
samples.py  a few dark images to try the job on
"""
