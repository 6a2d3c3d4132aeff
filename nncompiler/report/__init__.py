"""What a compiled model costs, line by line and kernel by kernel.

`accounts.analyse` reads the stages of a `driver.Compilation`, changes nothing, and gives a
`cost.Report`, which `text.render` prints and `cost.record` turns into JSON. `picture.memory_svg`
draws the memory of one plan.
"""
