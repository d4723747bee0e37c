"""What column names mean in lending: from a name to a meaning, with the reason in words.

Here: names alone. Not here: what a column's values say (`profile`, `leaks`), or what a contract
makes of either (`proposal`).

A name is matched after `normalised`: lower case, words joined by `_` (`Interest_rate_spread`,
`InterestRateSpread` and `interest rate spread` are one name).
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple


class Meaning(NamedTuple):
    """Names that match `pattern` mean `what`."""

    pattern: str
    what: str


# Known only after the loan was paid out. `total_acc` (accounts) and `last_name` are not.
AFTER_ORIGINATION = (
    Meaning(r"^total_(pymnt|payment|paid|repaid)|^(amount|amt)_(re)?paid", "what has been paid"),
    Meaning(r"^total_rec(_|d_|eived)|_rec_(prncp|int|late_fee)$", "what has been paid"),
    Meaning(r"^(principal|interest|fees?)_(paid|received|collected)", "what has been paid"),
    Meaning(r"recover(y|ies|ed)($|_)|^lgd$|loss_given_default", "what was recovered after default"),
    Meaning(
        r"^collections?_(recovery|fee|cost|agency|status)", "what a collection brought or cost"
    ),
    Meaning(r"^last_(pymnt|payment|fico|credit_pull|credit_score|score)", "a later state"),
    Meaning(r"^next_(pymnt|payment|due)", "the payment plan after origination"),
    Meaning(r"^(pymnt|payment)_plan", "the payment plan after origination"),
    Meaning(r"^out_prncp|outstanding_(principal|prncp|balance)|^remaining_", "what is still owed"),
    Meaning(r"(^|_)settlement(_|$)|(^|_)settled(_|$)", "a settlement with a loan in trouble"),
    Meaning(r"(^|_)(hardship|forbearance|deferral)(_|$)", "a hardship plan of a loan in trouble"),
    Meaning(r"^orig_projected_additional_accrued_interest$", "a hardship plan"),
    Meaning(
        r"^(date_of_)?charge_?d?_?off(_(d|date|amount|amnt|amt|reason|flag))?$", "a charge-off"
    ),
    Meaning(
        r"^(default|write_?off|closed?|closing|pay_?off|prepay(ment)?)_(d|dt|date)$", "the end"
    ),
    Meaning(r"^date_(of_)?(default|closed|paid|written_off|last_payment)", "the end"),
    Meaning(r"^(current_|max_|worst_)?(dpd|days_past_due|days_in_arrears)(_|$)", "later arrears"),
    Meaning(r"^(current_)?arrears|_arrears$|^(loan|current)_(delinquency|late)", "later arrears"),
    Meaning(r"^late_(fee|payment|days)|^missed_(pymnt|payment)s?$", "later arrears"),
    Meaning(r"^months?_on_books?$|^mob$|^payments_made|^(num|no)_of_payments_made", "later months"),
    Meaning(r"^foreclos|^repossess|^bankruptcy_(d|dt|date)$", "what followed a default"),
)

# Set by the lender in answer to the application: as a feature it feeds the model its own past.
LENDER_DECISION = (
    Meaning(
        r"^(loan_|risk_|credit_)?(sub_?)?grade$|^(risk|credit)_(class|band|tier)$", "the grade"
    ),
    Meaning(r"^(loan_)?(int(erest)?_?rate|rate_of_interest)(_.*)?$|^apr$|^coupon$", "the rate"),
    Meaning(r"(^|_)(interest_rate_)?(spread|margin)$", "the rate"),
    Meaning(r"^(monthly_)?(instal(l)?ment|emi|repayment)(_amount|_amnt|_amt)?$", "the instalment"),
    Meaning(
        r"^funded_|^disbursed_|^disbursement_amou?nt|^sanctioned_|^approved_(amount|amnt|amt)",
        "the amount",
    ),
    Meaning(r"^upfront_(charges?|fees?)|^origination_(charges?|fees?)$|^points$", "the charges"),
    Meaning(r"^(is_)?approv(ed|al)(_(status|flag|date|d))?$|^decision(_|$)", "the answer itself"),
    Meaning(r"^(pre_?approv(ed|al)|approv_in_adv(ance)?)$|credit_?worthiness", "its judgement"),
    Meaning(r"^initial_list_status$|^policy_code$|^risk_score_internal$", "the lender's handling"),
    Meaning(r"^(loan_)?verification_status(_joint)?$", "whether the lender verified the income"),
)
# Kept out of the model and set apart, so that its fairness can be tested.
PROTECTED = (
    Meaning(r"(^|_)(gender|sex)$", "sex"),
    Meaning(r"(^|_)(race|ethnic(ity)?|ethnic_group|skin_colou?r|tribe|caste)$", "ethnic origin"),
    Meaning(r"(^|_)(nationality|citizenship|national_origin|foreign_worker)$", "national origin"),
    Meaning(r"(^|_)(marital|marital_status|civil_status|marriage|married)$", "marital status"),
    Meaning(r"(^|_)(personal_status(_sex)?|pregnan(t|cy)|children_planned)$", "family status"),
    Meaning(r"(^|_)(religion|faith|denomination|disab(led|ility)|sexual_orientation)$", "belief"),
)
# Not protected in law, but stands for ethnic origin where people live apart (redlining).
PROXY = (
    Meaning(r"(^|_)(zip|zip_?code|postal_?code|postcode|post_code)$", "the postal district"),
    Meaning(r"(^|_)(addr_state|state|county|province|city|town|neighbou?rhood)$", "the place"),
    Meaning(r"^region$|(^|_)(latitude|longitude|lat|lon|lng)$", "the place"),
)
IDENTIFIER = (
    Meaning(
        r"^(id|uuid|guid|index|row_?(id|number|num)?|unnamed_0|s_?no|serial(_no)?)$", "a number"
    ),
    Meaning(
        r"_(id|uuid|guid)$|^id_|^(loan|account|application|customer)_(no|num|number)$", "a number"
    ),
    Meaning(r"^(first|last|full|middle|sur|maiden|customer|borrower)_?name$|^name$", "a name"),
    Meaning(r"(^|_)(e_?mail|phone|mobile|telephone|fax)(_|$)", "how to reach a person"),
    Meaning(
        r"(^|_)(ssn|social_security|passport|national_id|tax_id|iban|aadhaar|pan)(_|$)", "a number"
    ),
    Meaning(r"(^|_)(url|link|street|address|ip_address)$", "an address"),
    Meaning(r"(^|_)(birth_?date|date_of_birth|dob)$", "the day of birth"),
)
# What a person wrote in own words: no figure, and who knows what it tells of them.
FREE_TEXT = (
    Meaning(r"(^|_)(desc|description|comment|comments|notes?|remarks?|narrative)$", "free text"),
    Meaning(
        r"^(emp|job|employment)_(title|name)$|^employer(_name)?$|^occupation_text$", "free text"
    ),
    Meaning(r"^title$|^loan_title$", "free text"),
)
# From the likeliest name of an outcome to the least likely.
OUTCOME = (
    Meaning(r"^(loan_)?status$", "what became of the loan"),
    Meaning(r"^(is_|has_)?(bad|default(ed)?|charged?_?off)(_(flag|ind|indicator|label))?$", "bad"),
    Meaning(r"^(loan_)?default(_status|_next_month|_payment_next_month)?$", "bad"),
    Meaning(r"^(good_bad|bad_good)(_flag)?$|^(serious_?dlqin2yrs|seriousdlqin_?2_?yrs)$", "bad"),
    Meaning(r"^(loan_)?(outcome|performance|repayment_status|final_status|result)$", "the outcome"),
    Meaning(r"^(target|label|y|class|response)$", "the outcome"),
)
TIME = (
    Meaning(r"^(application|applied|apply|app)_?(d|dt|date|at|on|time|day|month)?$", "application"),
    Meaning(r"^date_(of_)?application$|^date_applied$|^(submitted|submission)(_|$)", "application"),
    Meaning(r"^(request|decision)(ed)?_(d|dt|date|at)$", "application"),
    Meaning(r"^(issue|issued|origination|orig|originated)_?(d|dt|date|at|on|month)$", "the issue"),
    Meaning(
        r"^(disbursement|disbursal|funded|booking|start|opening|open)_(d|dt|date)$", "the issue"
    ),
    Meaning(r"^(loan_)?(date|month|period|timestamp|created|created_at)$", "a date"),
)

# Unit of a column's figures; of the first pattern that fits.
UNITS = (
    Meaning(r"(^|_)(age)$", "years"),
    Meaning(
        r"(emp|employment|cred|credit|job|residence).*(length|len|exp|experience|years|yrs)",
        "years",
    ),
    Meaning(r"(^|_)(years?|yrs)($|_)(?!.*inq)|_(hist|history)_length$", "years"),
    Meaning(r"(^|_)(mths|months?|mo|term|tenure|duration)(_|$)", "months"),
    Meaning(r"(^|_)days?(_|$)", "days"),
    Meaning(
        r"(^|_)(inq|inquir(y|ies)|delinq|acc|accts|accounts|pub_rec|num|number|count)(_|$)", "count"
    ),
    Meaning(
        r"(^|_)(dependents|dependants|liens|bankruptcies|units|mort_acc|collections)(_|$)", "count"
    ),
    Meaning(r"(^|_)(fico|credit_?score|score|bureau_score)(_|$)", "points"),
    Meaning(
        r"(rate|apr|util|utili[sz]ation|percent|pct|percentage|ltv|dti|dtir1?|ratio)(_|$)", "rate"
    ),
    Meaning(r"(^|_)(annual|yearly)_?(inc|income|salary)|person_income", "currency a year"),
    Meaning(r"(^|_)monthly_?(inc|income|salary)", "currency a month"),
    Meaning(r"(^|_)(inc|income|salary|wage)(_|$)", "currency"),
    Meaning(
        r"(amnt|amount|amt|bal|balance|value|price|charges?|fee|limit|debt|payment)(_|$)",
        "currency",
    ),
)

# How the probability of default moves as a column rises, all else being equal. Income is not
# among them: held to fall with it, models of credit_risk, playground_s4e10 and loan_approval lose
# 0.01 to 0.03 of their AUC, as who earns more asks for more.
DIRECTIONS = (
    Meaning(
        r"^(dti|dtir1|debt_to_income(_ratio)?|loan_percent_income|loan_to_income)$", "increasing"
    ),
    Meaning(r"^(fico|credit_score|bureau_score|fico_range_(low|high)|fico_score)$", "decreasing"),
    Meaning(
        r"^(inq_|num_inq|inquiries)|^(delinq_2yrs|pub_rec|pub_rec_bankruptcies)$", "increasing"
    ),
    Meaning(r"^(revol_util|credit_utili[sz]ation|utili[sz]ation|bc_util)$", "increasing"),
)

# Told by an applicant or a bureau before any decision, so of use in making one.
KNOWN = (
    Meaning(r"(home|house|housing|residence)(_ownership|_status|_type)?$|own(s|ed)?_", "housing"),
    Meaning(r"(^|_)(intent|purpose)$|^(loan|application|product)_type$", "what the loan is for"),
    Meaning(r"(^|_)(education|occupation|employment|job|profession|self_employed)(_|$)", "work"),
    Meaning(r"defaults?_on_file$|^previous_|^prior_", "the bureau's file"),
    Meaning(r"(^|_)(occupancy|construction|property|security|secured|collateral)(_|$)", "security"),
)


def normalised(name: str) -> str:
    """Lower case, words joined by `_`: `loanAmount`, `Loan Amount` and `loan-amount` are one."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def after_origination(name: str) -> str | None:
    """Why a column of this name is known only after origination, in words; None if it is not."""
    what = meaning(AFTER_ORIGINATION, name)
    return f"known only after origination: {what}" if what else None


def lender_decision(name: str) -> str | None:
    """Why a column of this name is the lender's own decision, in words; None if it is not."""
    what = meaning(LENDER_DECISION, name)
    return f"the lender's own decision: {what}" if what else None


def protected(name: str) -> str | None:
    """What a column of this name says that nobody may be judged by; None if nothing."""
    return meaning(PROTECTED, name)


@functools.cache
def meaning(meanings: tuple[Meaning, ...], name: str) -> str | None:
    """What the first pattern that fits the name means; None where none fits."""
    plain = normalised(name)
    return next((each.what for each in meanings if re.search(each.pattern, plain)), None)
