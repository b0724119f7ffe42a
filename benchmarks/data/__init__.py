"""The suite `data`: from annotations and media files to what training reads.

cases         every case with its target
video         V1, V2: frames out of a clip, and the same frames once more
samples       P2: a sample with its picture to ids, labels and patches
opening       D1: a million annotations, ready to be read in any order
inspection    D2: what a hundred thousand files are, by their headers and from memory
scale         whole validations of 10,000 to 1,000,000 annotations, each in a process of its own
throughput    extraction against decoding alone, pictures and frames
scale_report  the tables of both, and the goals that are no ratios
follow_up     both, as the command runs them after the cases
annotations   generated annotations and the pictures they name
cache         where generated files stay between runs
"""
