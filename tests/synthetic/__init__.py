"""A synthetic pair: records and a manifest without a model, and the `Result` they come to.

The numbers are drawn; everything else is the product's own: the records have the schemas of
`run.records`, the manifest the keys of `workflow.measure`, the policy is a YAML file, and
`results.judge` and `results.assemble.build` make the result. A form that no run produces can
therefore not reach a renderer here.
"""
