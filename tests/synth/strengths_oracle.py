"""Strengths of Bradley and Terry with the prior of erank/synth/strengths.h, by scipy: JSON {count,
prior, comparisons: [[first, second, share of the win]]} in, the list of strengths out."""

import json
import sys

import numpy
import scipy.optimize
from scipy.special import expit, log_expit

task = json.load(sys.stdin)
first, second, share = (numpy.array(column) for column in zip(*task["comparisons"]))
first, second = first.astype(int), second.astype(int)
prior = task["prior"]


def loss(s):
    lead = s[first] - s[second]
    won = share * log_expit(lead) + (1 - share) * log_expit(-lead)
    return -(won.sum() + prior * (log_expit(s) + log_expit(-s)).sum())


def gradient(s):
    slope = share - expit(s[first] - s[second])
    g = numpy.zeros_like(s)
    numpy.add.at(g, first, slope)
    numpy.add.at(g, second, -slope)
    return -(g + prior * (1 - 2 * expit(s)))


start = numpy.zeros(task["count"])
near = scipy.optimize.minimize(loss, start, jac=gradient, method="BFGS", options={"gtol": 1e-9}).x
print(json.dumps(list(scipy.optimize.fsolve(gradient, near, xtol=1e-14))))
