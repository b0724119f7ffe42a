"""The suite `training`: what fine-tuning does with its samples, and whole trainings side by side.

cases            every case with its target
packing          S1: samples to rows, against best fit by tokens alone
mix              sizes of samples as fine-tuning sets have them
variants         T1 to T6: who trains, against whom, and what must come out
world            what they train on, on disk: a checkpoint folder, annotations, pictures
trainers         one trainer in one process, epoch by epoch
race             trainers by turns, and whether they found the same losses
expected         what an epoch is, and what `ovis plan` says of it
follow_up        the races' tables and goals
reference_model  Ovis2.5 as the official trainer computes it, in our words
reference_data   samples as it reads and pads them
"""
