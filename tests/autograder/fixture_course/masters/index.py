# %% [markdown]
# # A small course
#
# <!-- lessons -->

# %%
print("Ready.")
